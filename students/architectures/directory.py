"""The sentence-transformers form of a student's directory: the files that its classes read beside the model's files.

Version 6 names modules by their full import path, and still reads the older, shorter names. Modules that have an older
name are written under it, so older versions load the directory too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from teachers.checkpoints.modules import MODULES_FILE


class Module(NamedTuple):
    """One module of a sentence-transformers model."""

    path: str
    """Its subdirectory; "" for the transformer."""
    class_path: str
    """Import path of its class."""
    config: Mapping[str, Any] | None = None
    weights: Mapping[str, Tensor] | None = None


def write_modules(
    directory: Path, modules: Sequence[Module], *, transformer: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    """Write modules.json, each module's own files, and the configurations of the transformer and the model."""
    listed = [
        {"idx": i, "name": str(i), "path": module.path, "type": module.class_path} for i, module in enumerate(modules)
    ]
    write_json(directory / MODULES_FILE, listed)
    write_json(directory / "sentence_bert_config.json", transformer)
    write_json(directory / "config_sentence_transformers.json", model)
    for module in modules:
        folder = directory / module.path
        folder.mkdir(exist_ok=True)
        if module.config is not None:
            write_json(folder / "config.json", module.config)
        if module.weights is not None:
            save_file(
                {name: weight.detach().cpu().contiguous() for name, weight in module.weights.items()},
                folder / "model.safetensors",
            )


def save_tokenizer(
    tokenizer: PreTrainedTokenizerBase, directory: Path, max_length_tokens: int, with_types: bool | None = None
) -> None:
    """Write a tokenizer whose plain call gives the inputs that a student was trained with.

    Args:
        tokenizer: of the student.
        directory: of the student.
        max_length_tokens: where the call cuts; libraries read no other limit from it.
        with_types: whether the call returns token types; None: as before.
    """
    tokenizer.model_max_length = max_length_tokens
    if with_types is not None:
        types = ["token_type_ids"] if with_types else []
        names = ["input_ids", *types, "attention_mask"]
        # Saved from `init_kwargs`; a tokenizer that was built from parts saves its attribute instead.
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    tokenizer.save_pretrained(directory)


def transformer_facts(task: str, output: str, **lengths: Any) -> dict[str, Any]:
    """Configuration of a transformer of version 6 whose `output` for each token is the next module's input."""
    return {
        "transformer_task": task,
        "modality_config": {"text": {"method": "forward", "method_output_name": output}},
        "module_output_name": "token_embeddings",
        **lengths,
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON values."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

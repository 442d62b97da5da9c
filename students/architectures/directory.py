"""A student's directory in sentence-transformers' form: what its classes read beside the model's own files.

Version 6 names modules by their full path; the older names that it still reads are used where they exist, so that
older versions load the directory too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

MODULES_FILE = "modules.json"


class Module(NamedTuple):
    """One step after the transformer."""

    path: str
    """Its directory, or "" for the transformer itself."""
    kind: str
    """Full name of its class."""
    config: Mapping[str, Any] | None = None
    weights: Mapping[str, Tensor] | None = None


def write_modules(
    directory: Path, modules: Sequence[Module], *, transformer: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    """Write modules.json, each module's own files, and the configurations of the transformer and the model."""
    listed = [{"idx": i, "name": str(i), "path": module.path, "type": module.kind} for i, module in enumerate(modules)]
    write_json(directory / MODULES_FILE, listed)
    write_json(directory / "sentence_bert_config.json", transformer)
    write_json(directory / "config_sentence_transformers.json", model)
    for module in modules:
        place = directory / module.path
        place.mkdir(exist_ok=True)
        if module.config is not None:
            write_json(place / "config.json", module.config)
        if module.weights is not None:
            save_file(
                {name: weight.detach().cpu().contiguous() for name, weight in module.weights.items()},
                place / "model.safetensors",
            )


def transformer_facts(task: str, output: str, **lengths: Any) -> dict[str, Any]:
    """Configuration of a transformer of version 6 whose `output` for each token is what the next module reads."""
    return {
        "transformer_task": task,
        "modality_config": {"text": {"method": "forward", "method_output_name": output}},
        "module_output_name": "token_embeddings",
        **lengths,
    }


def read_modules(directory: Path) -> dict[str, Path]:
    """The directories of a model's modules by the last part of their class name; empty without modules.json."""
    listed = read_json(directory / MODULES_FILE)
    if not isinstance(listed, list):
        return {}
    return {module["type"].rsplit(".", 1)[-1]: directory / module["path"] for module in listed}


def write_json(path: Path, content: Any) -> None:
    """Write JSON values."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """JSON values of a file, None if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

"""Whether the inputs of a loaded cross-encoder have token types; the rule is in `teachers.checkpoints.inputs`."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipeline.errors import UsageError
from teachers.checkpoints.bert_cat import BertCat
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.inputs import is_trained_here, token_types_of
from teachers.checkpoints.model_files import read_object
from teachers.settings import Switch

log = logging.getLogger(__name__)
NAME = "token_type_ids"


def takes_token_types(module: Any, config: Any) -> bool:
    """Whether a model reads token types, and has more than one."""
    size = getattr(config, "type_vocab_size", None)
    reader = module.encoder if isinstance(module, BertCat) else module
    if NAME not in inspect.signature(reader.forward).parameters:
        return False
    return size is None or size > 1


def decide_token_types(
    checkpoint: Checkpoint,
    module: Any,
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    given: Switch | None = None,
) -> bool:
    """Whether pairs are given to a model with token types; warns where its files do not tell how it was trained.

    Args:
        checkpoint: of the model.
        module: the loaded model.
        config: its configuration.
        tokenizer: as loaded from the checkpoint.
        given: `--token-types`.

    Raises:
        UsageError: they are asked for, but the model has none.
    """
    usable = takes_token_types(module, config)
    if given is not None:
        if given == "on" and not usable:
            raise UsageError(
                "this model has no token types", where=checkpoint.directory, found="--token-types on",
                todo="leave --token-types out",
            )  # fmt: skip
        return given == "on"
    files = checkpoint.config, read_object(checkpoint.tokenizer_directory / "tokenizer_config.json")
    here = is_trained_here(checkpoint.directory)
    decided = token_types_of(*files, trained_here=here)
    on = usable and (decided.by == "before" or NAME in tokenizer.model_input_names)
    if here and decided.by == "before":  # trained by a version of this project that went by this number
        on = usable and (getattr(config, "type_vocab_size", None) or 0) > 1
    if usable and not decided.known and marks_passages(tokenizer):
        log.warning(
            "%s: its files do not tell whether it was trained with token types; scored %s them, as %s; "
            "--token-types on or off decides",
            checkpoint.name,
            "with" if on else "without",
            "transformers 4 did" if decided.by == "before" else "the installed transformers does",
        )
    return on


def marks_passages(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer gives some token of a pair another type than 0."""
    return any(tokenizer("a", "b", return_token_type_ids=True)[NAME])

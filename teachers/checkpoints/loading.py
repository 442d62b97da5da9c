"""Loading with transformers: from a local directory, no code from a checkpoint, no pickles but plain weights.

What matters about a load we say ourselves, as an error or a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import AddedToken, normalizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import Checkpoint, weight_files
from teachers.checkpoints.config_keys import check_config

# What files that are damaged, foreign or of an unknown architecture make the libraries raise.
_LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, EOFError, UnpicklingError, SafetensorError)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and no load reports inside the block; the settings before it return."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def loading(what: str, where: Path, todo: str | None = None) -> Iterator[None]:
    """Load inside the block, quietly; whatever the libraries raise becomes a ModelError about `what`."""
    try:
        with quiet_loading():
            yield
    except _LOADING_ERRORS as error:
        found = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot be loaded as {what}", where=where, found=found, todo=todo) from error


def load_config(directory: Path) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        ModelError: config.json has a key that its class does not know.
    """
    config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    check_config(config, directory)
    return config


def load_tokenizer(checkpoint: Checkpoint, config: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer beside the weights, or that of the encoder that a published matchmaker model names.

    Raises:
        ModelError: its files cannot be read.
    """
    where, definition = checkpoint.tokenizer_directory, checkpoint.definition
    with loading("a tokenizer", where):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, config=config, local_files_only=True, trust_remote_code=False
        )
    if definition.lower_case:
        _lower_case(tokenizer)
    if definition.prefix_tokens:
        _keep_whole(tokenizer, definition.prefix_tokens)
    return tokenizer


def _lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Lower-case texts before the tokenizer's own normalisation, as `do_lower_case` of sentence-transformers does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "do_lower_case with a slow tokenizer", where=type(tokenizer).__name__, expected="a fast tokenizer"
        )
    own = backend.normalizer
    steps: list[Any] = [own] if own is not None else []
    if isinstance(own, normalizers.Sequence):
        steps = list(cast(Iterable[Any], own))
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def _keep_whole(tokenizer: PreTrainedTokenizerBase, prefixes: Iterable[str]) -> None:
    """Make special tokens of prefixes that are in the vocabulary but would be split, as MultiVectorEncoder does."""
    known = {*tokenizer.get_vocab(), *tokenizer.added_tokens_encoder}
    whole: list[AddedToken] = []
    for prefix in prefixes:
        candidates = [text for text in (prefix, *prefix.split(None, 1)[:1]) if text in known]
        if candidates and tokenizer.tokenize(candidates[0]) != [candidates[0]]:
            whole.append(AddedToken(candidates[0], normalized=False, special=True))
    if whole:
        tokenizer.add_special_tokens({"additional_special_tokens": whole})


def load_model(kind: Any, directory: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model of one of transformers' auto classes, and what its load left missing, mismatched or unused.

    Weights of another shape are left random and reported, as missing ones are: the caller must look.
    """
    model, info = kind.from_pretrained(
        directory,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        local_files_only=True,
        trust_remote_code=False,
        weights_only=True,
        **options,
    )
    return model, info


def read_weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """All weights by name; pickled ones are read as weights alone."""
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(checkpoint.directory):
        if path.suffix == ".safetensors":
            state |= load_file(path)
        elif path.suffix == ".bin":
            state |= torch.load(path, map_location="cpu", weights_only=True)
    return state

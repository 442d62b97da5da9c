"""Checkpoints: a name on the Hub or a local directory, the files that matter, and their identity.

In: what the user typed. Out: a local directory and digests of what decides its scores. Imports neither torch
nor transformers: a driver asks for fingerprints before anything is loaded. No code from a checkpoint is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import RevisionResolutionError

from pipeline.errors import ModelError, UsageError
from pipeline.fingerprint import digest_files, digest_json
from teachers.checkpoints.definition import Definition
from teachers.checkpoints.families import BERT_CAT
from teachers.checkpoints.inputs import inputs_identity
from teachers.checkpoints.known_keys import TRANSFORMER_FILES
from teachers.checkpoints.modules import MODULES_FILE
from teachers.checkpoints.reading import CONFIG, LIBRARY_CONFIG, STUDENT_FILE, read_definition, refuse_files
from teachers.settings import ScoringSettings

__all__ = ["BERT_CAT", "CONFIG", "Checkpoint", "fingerprint_of", "read_config", "resolve", "weight_files"]

# In the order of preference that transformers has.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SENTENCEPIECE = ("spiece.model", "spm.model", "tokenizer.model", "sentencepiece.bpe.model")
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", *_SENTENCEPIECE)
_TOKENIZER = (
    *_VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_SAFE = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
# Files that shape a model beside its weights, and files that refuse it: see `teachers.checkpoints.reading`.
_SHAPING = (
    MODULES_FILE,
    LIBRARY_CONFIG,
    *TRANSFORMER_FILES,
    "[0-9]*_*/config.json",
    "[0-9]*_*/model.safetensors",
    "[0-9]*_*/pytorch_model.bin",
    "chat_template.*",
    "additional_chat_templates/*",
    "adapter_config.json",
    "*processor_config.json",
    STUDENT_FILE,
)
_PICKLED = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")

# Token types are a matter of files and this rule, so the fingerprint holds the rule, not its outcome.
_TOKEN_TYPES = "passed where the model has more than one"

# Where the products are not float32, how the rest is computed decides which bits a score loses.
_SUMS = "float32 between layers"


@dataclass(frozen=True)
class Checkpoint:
    """A cross-encoder's files on this machine."""

    name: str
    """As the user gave it."""
    directory: Path
    revision: str | None
    """Commit on the Hub; None for a local directory."""
    tokenizer_directory: Path
    """The same directory, or that of the encoder that a published matchmaker model names (`bert_model`)."""

    @property
    def base_name(self) -> str:
        """The last part of the name: that of the directory, or of the repository without its owner."""
        return Path(self.name).name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of the checkpoint's config.json."""
        return read_config(self.directory)

    @cached_property
    def definition(self) -> Definition:
        """All that its files say about how texts become scores.

        Raises:
            ModelError: a file has a key or value that is not understood.
        """
        return read_definition(self.directory, self.tokenizer_directory)

    @property
    def is_bert_cat(self) -> bool:
        """Whether this is matchmaker's published form, which has no class in transformers."""
        return _is_bert_cat(self.config)

    @cached_property
    def weights_hash(self) -> str:
        """Digest of configuration and weights."""
        return digest_files([self.directory / CONFIG, *weight_files(self.directory)])

    @cached_property
    def tokenizer_hash(self) -> str:
        """Digest of the tokenizer's files, of what other files change in it, and of an encoder's configuration.

        Texts have the same token ids where it is the same.
        """
        names = _TOKENIZER if self.tokenizer_directory == self.directory else (*_TOKENIZER, CONFIG)
        files = digest_files(path for name in names if (path := self.tokenizer_directory / name).is_file())
        own = self.definition
        changed = {"lower_case": own.lower_case, "prefix_tokens": own.prefix_tokens}
        return digest_json([files, changed]) if any(changed.values()) else files

    def fingerprint(self, settings: ScoringSettings) -> str:
        """Identity of the scores it gives under `settings`; batch size and device are no part of it."""
        settings = self.definition.applied(settings)
        prompts = {"prompts": settings.prompts} if any(settings.prompts) else {}
        lowered = {} if settings.dtype == "float32" else {"sums": _SUMS, "backend": settings.engine}
        return digest_json(
            {
                **lowered,
                **prompts,
                **self.definition.prompting(settings),
                **inputs_identity(self.directory, self.tokenizer_directory, settings),
                "weights": self.weights_hash,
                "tokenizer": self.tokenizer_hash,
                "token_types": _TOKEN_TYPES,
                "max_length_tokens": settings.max_length_tokens,
                "truncation": settings.truncation,
                "dtype": settings.dtype,
                "activation": "identity",
            }
        )


def fingerprint_of(name: str, settings: ScoringSettings, *, revision: str | None = None) -> str:
    """The fingerprint of the scorer that would be loaded, from its files alone."""
    return resolve(name, revision=revision).fingerprint(settings)


def resolve(name: str | Checkpoint, *, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint: a local directory of that name if one exists, else a repository on the Hub.

    Honours HF_HUB_OFFLINE and the Hub's cache. A checkpoint that is already resolved is returned as it is, so that
    callers who hold one pass it on and its files are hashed once.

    Args:
        name: a directory, a name on the Hub, or a resolved checkpoint.
        revision: a branch, tag or commit on the Hub.

    Raises:
        ModelError: no such checkpoint, or files are missing.
        UsageError: a revision of a local directory.
    """
    if isinstance(name, Checkpoint):
        return name
    directory, commit = _locate(name, revision, (CONFIG, *_TOKENIZER, *_SHAPING, *_SAFE))
    if commit is not None and not any((directory / file).is_file() for file in _WEIGHTS[:2]):
        directory, commit = _locate(name, commit, (CONFIG, *_TOKENIZER, *_SHAPING, *_PICKLED))
    refuse_files(directory)
    config = read_config(directory)
    weight_files(directory)
    tokenizer = directory
    # All published matchmaker models, not the cross-encoder alone, name their encoder and bring no tokenizer.
    if not _has_tokenizer(directory) and isinstance(config.get("bert_model"), str):
        tokenizer, _ = _locate(config["bert_model"], None, (CONFIG, *_TOKENIZER))
    if not _has_tokenizer(tokenizer):
        # transformers would build one with no vocabulary but its five special tokens, and say nothing.
        raise ModelError(
            "no tokenizer",
            where=tokenizer,
            expected=" or ".join(_VOCABULARIES),
            todo="save the tokenizer beside the weights: tokenizer.save_pretrained(directory)",
        )
    return Checkpoint(name, directory, commit, tokenizer)


def read_config(directory: Path) -> dict[str, Any]:
    """The directory's config.json.

    Raises:
        ModelError: missing, or not a JSON object.
    """
    path = directory / CONFIG
    if not path.is_file() and (directory / MODULES_FILE).is_file():
        read_definition(directory, directory).check_runs()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("not a model directory", where=path, expected="a JSON file", found=error) from error
    if not isinstance(config, dict):
        raise ModelError("not a model directory", where=path, expected="a JSON object", found=type(config).__name__)
    return config


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights, index included; safetensors before pickled ones.

    Raises:
        ModelError: none, or not all that the index names.
    """
    for name in _WEIGHTS:
        path = directory / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [shard for shard in shards if not (directory / shard).is_file()]
        if missing:
            raise ModelError("weights missing", where=directory, expected=missing, todo="fetch the checkpoint again")
        return [path, *(directory / shard for shard in shards)]
    raise ModelError("no weights", where=directory, expected=" or ".join(_WEIGHTS))


def _is_bert_cat(config: dict[str, Any]) -> bool:
    return config.get("model_type") == BERT_CAT or BERT_CAT in (config.get("architectures") or [])


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _VOCABULARIES)


def _locate(name: str, revision: str | None, patterns: Iterable[str]) -> tuple[Path, str | None]:
    """Local directory, and the commit if it came from the Hub."""
    local = Path(name).expanduser()
    if local.is_dir():
        if revision is not None:
            raise UsageError("a local directory has no revisions", where=local, found=revision)
        return local.absolute(), None
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError("no such directory", where=local)
    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError, RevisionResolutionError) as error:
        raise ModelError(
            "neither a local directory nor to be had from the Hub",
            where=name,
            found=str(error).strip().splitlines()[0],
            todo="check the name, or fetch it where there is a network and name the directory",
        ) from error
    return found, found.name

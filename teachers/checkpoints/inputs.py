"""What a cross-encoder's inputs hold besides the tokens' ids, as far as its files tell: token types and padding.

Token types are the numbers that tell a pair's texts apart. Whether a tokenizer returns them by default changed between
transformers 4 and 5, and a tokenizer's files seldom say which default the model was trained with. Imports neither torch
nor transformers, because fingerprints are computed where no model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from teachers.checkpoints.model_files import read_object
from teachers.settings import ScoringSettings

# Classes of tokenizers, without "Tokenizer" and "Fast".
_GIVE_TYPES: Final = {
    "Bert", "Canine", "ConvBert", "DPRContextEncoder", "DPRQuestionEncoder", "Deberta", "DebertaV2", "Electra",
    "FNet", "LayoutLM", "LayoutLMv2", "Lxmert", "MarkupLM", "MobileBert", "SqueezeBert", "Tapas",
}  # fmt: skip
"""Their default includes token types."""
_GAVE_TYPES: Final = {
    "Albert", "BertJapanese", "CTRL", "Cpm", "Flaubert", "Funnel", "Herbert", "PreTrained", "RemBert", "RoCBert",
    "RoFormer", "Splinter", "TokenizersBackend", "XLM", "XLNet",
}  # fmt: skip
"""Their default included token types in transformers 4, and does not in 5.23."""
_ALL_ALIKE: Final = frozenset({"Barthez", "Camembert", "Roberta", "XLMRoberta"})
"""Classes whose token types are all 0."""
_TOKENIZERS: Final = {
    "albert": "Albert", "big_bird": "BigBird", "ctrl": "CTRL", "flaubert": "Flaubert", "funnel": "Funnel",
    "herbert": "Herbert", "rembert": "RemBert", "roberta": "Roberta", "roc_bert": "RoCBert", "roformer": "RoFormer",
    "splinter": "Splinter", "xlm": "XLM", "xlm-roberta": "XLMRoberta", "xlnet": "XLNet", "yoso": "Albert",
}  # fmt: skip
"""Model type → class of its tokenizer, for tokenizer files that name none; "Bert" for all others."""
_TYPES_WITHOUT_SIZE: Final = frozenset({"ctrl", "flaubert", "funnel", "xlm", "xlnet"})
"""Model types that read token types although their configuration has no `type_vocab_size`."""
MOVED_BY_PADDING: Final = frozenset({"canine", "convbert", "fnet", "mobilebert", "nystromformer", "yoso"})
"""Model types whose states change with the padding of their batch; measured with transformers 5.23."""
_READ_THE_MASK: Final = frozenset(
    {"albert", "bert", "camembert", "distilbert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta"}
)
"""Model types that find padding by the attention mask alone, whatever id it has."""

Default = Literal["declared", "before", "library"]


class TokenTypes(NamedTuple):
    """How the token types of a checkpoint are decided; see `token_types_of`."""

    by: Default
    """`declared` by its files, as `before` version 5 of transformers, or by the default of the installed `library`."""
    known: bool
    """Whether the files tell how the model was trained."""


def token_types_of(config: Mapping[str, Any], tokenizer: Mapping[str, Any], *, trained_here: bool) -> TokenTypes:
    """How to decide whether a model gets token types.

    A tokenizer that declares its inputs (`model_input_names`) is followed. So is the default of its class, except for
    classes whose default has lost the token types: what was saved by an older version of transformers, or trained here
    before tokenizers were saved with their inputs, was trained with token types.

    Args:
        config: of config.json.
        tokenizer: of tokenizer_config.json.
        trained_here: whether this project trained the model.
    """
    if isinstance(tokenizer.get("model_input_names"), list):
        return TokenTypes("declared", True)
    if _tokenizer_class(config, tokenizer) not in _GAVE_TYPES:
        return TokenTypes("library", True)
    if trained_here:
        return TokenTypes("before", True)
    saved_by = str(config.get("transformers_version") or "0")
    return TokenTypes("before" if saved_by.partition(".")[0] in ("0", "1", "2", "3", "4") else "library", False)


def inputs_identity(directory: Path, tokenizer_directory: Path, settings: ScoringSettings) -> dict[str, str]:
    """What a fingerprint has to hold about token types and padding; empty where scores are what they always were.

    Args:
        directory: of the checkpoint.
        tokenizer_directory: of its tokenizer; another directory only for published matchmaker models.
        settings: `token_types`, if set, decides.
    """
    config = read_object(directory / "config.json")
    tokenizer = read_object(tokenizer_directory / "tokenizer_config.json")
    identity: dict[str, str] = {}
    types = settings.token_types or _changed_types(directory, config, tokenizer)
    if types is not None:
        identity["token_types_given"] = types
    if is_moved_by_padding(config) or _pads_with_another_id(directory, config, tokenizer):
        identity["padding"] = "none"
    return identity


def is_moved_by_padding(config: Mapping[str, Any]) -> bool:
    """Whether states of this model are known to change with the padding of their batch."""
    return config.get("model_type") in MOVED_BY_PADDING


def is_trained_here(directory: Path) -> bool:
    """Whether this project trained the model of a directory."""
    return (directory / "prep.json").is_file()


def _changed_types(directory: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str | None:
    """`on` or `off` where earlier versions of this project decided otherwise, by `type_vocab_size` alone."""
    here = is_trained_here(directory)
    decided, known = token_types_of(config, tokenizer, trained_here=here), _tokenizer_class(config, tokenizer)
    if decided.by == "declared":
        on = "token_type_ids" in tokenizer["model_input_names"]
    else:
        on = decided.by == "before" or known in _GIVE_TYPES
    size = config.get("type_vocab_size")
    if isinstance(size, int):
        return "off" if size > 1 and not on and _marks_passages(directory, known) else None
    return "on" if on and not here and config.get("model_type") in _TYPES_WITHOUT_SIZE else None


def _tokenizer_class(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str:
    named = str(tokenizer.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    return named or _TOKENIZERS.get(str(config.get("model_type")), "Bert")


def _marks_passages(directory: Path, tokenizer_class: str) -> bool:
    """Whether the tokenizer gives a passage another token type than a query; so, if its files do not tell."""
    processor = read_object(directory / "tokenizer.json").get("post_processor")
    if processor is None:
        return tokenizer_class not in _ALL_ALIKE
    text = json.dumps(processor)
    return '"type_id": 1' in text or '"BertProcessing"' in text


def _pads_with_another_id(directory: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> bool:
    """Whether a model that looks for padding by its id is given another id than it looks for."""
    expected, pad = config.get("pad_token_id"), tokenizer.get("pad_token")
    name = pad.get("content") if isinstance(pad, dict) else pad
    if expected is None or name is None or config.get("model_type") in _READ_THE_MASK:
        return False
    added = read_object(directory / "tokenizer.json").get("added_tokens") or []
    ids = {token["content"]: token["id"] for token in added}
    ids |= {token["content"]: int(number) for number, token in (tokenizer.get("added_tokens_decoder") or {}).items()}
    return name in ids and ids[name] != expected

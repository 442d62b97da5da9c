"""The modules of a sentence-transformers directory, each with its configuration, read by an allow-list.

In: `modules.json`, each module's own files, and the transformer's `sentence_*_config.json`. Out: what a scorer needs to
compute the same states: pooling, the layers above it, masks, and how texts become tokens. Reads version 6 and all older
names of keys. Modules in code of the checkpoint's are never run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.errors import ModelError
from teachers.checkpoints.known_keys import HARMLESS_MODEL_ARGUMENTS, MODULE_KEYS, TRANSFORMER_FILES
from teachers.checkpoints.model_files import Keys, read_json

MODULES_FILE = "modules.json"
TRANSFORMERS = ("Transformer", "MLMTransformer")
SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"
PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# The order in which older versions concatenate the vectors of several modes.
_OLDER_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_PACKAGES = ("sentence_transformers.", "pylate.models.Dense.")
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


class ListedModule(NamedTuple):
    """One entry of modules.json."""

    kind: str
    """Class name, without its path."""
    directory: Path

    def keys(self) -> Keys:
        """The module's configuration.

        Raises:
            ModelError: it has none, and the module cannot do without.
        """
        path = self.directory / "config.json"
        if self.kind in ("Pooling", "Dense", "LayerNorm") and not path.is_file():
            raise ModelError("a module's configuration is missing", where=self.directory, expected=path.name)
        return Keys.read(path)


class Pooling(NamedTuple):
    """How a text's vector is made from its tokens' states."""

    modes: tuple[PoolingMode, ...] = ("mean",)
    """One vector for each mode, concatenated."""
    include_prompt: bool = True
    """Whether the prompt's tokens count."""


class DenseLayer(NamedTuple):
    """A linear layer with an activation; its weights are in `directory`."""

    directory: Path
    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "Tanh"
    """A class of torch.nn."""
    residual: bool = False

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear layer alone."""
        return self.activation == "Identity" and not self.residual


class LayerNorm(NamedTuple):
    """A layer normalisation; its weights are in `directory`."""

    directory: Path
    width: int


class UnitLength(NamedTuple):
    """Scaling to unit length."""


Step = DenseLayer | LayerNorm | UnitLength


class Splade(NamedTuple):
    """How a sparse vector is made from the logits of a text's tokens."""

    strategy: Literal["max", "sum"] = "max"
    activation: Literal["relu", "log1p_relu"] = "relu"


class ScoringMask(NamedTuple):
    """Which tokens of a multi-vector encoder's texts are scored."""

    skip_words: tuple[str, ...] = ()
    """Tokens that are not scored."""
    skip_in: tuple[str, ...] = ("document",)
    """Where they are not: in "query", "document" or both."""
    keep_ids: tuple[int, ...] = ()
    """If there are any, the only tokens of a passage that are scored."""


class Expansion(NamedTuple):
    """Tokens that fill a query up."""

    length: int
    """Tokens of a query after it."""
    fixed: bool = True
    """Whether longer queries are cut to `length`."""
    attend: bool = False
    """Whether the encoder attends to them."""
    token: str | None = None
    """None: the tokenizer's mask token, else its end token."""


@dataclass(frozen=True)
class TransformerConfig:
    """What `sentence_bert_config.json` and its older names say."""

    task: str = ""
    """`transformer_task`; "" if it is not stated."""
    max_seq_length: int | None = None
    max_length: int | None = None
    """Of every text, whatever the tokenizer says."""
    query_length: int | None = None
    document_length: int | None = None
    expansion: Expansion | None = None
    states_expansion: bool = False
    """Whether `query_expansion` is stated, if only as null."""
    lower_case: bool = False
    modalities: tuple[str, ...] = ("text",)
    message_format: str = "auto"
    """How a chat template gets a text: "flat", as the content of a message; "structured", as an entry in it."""


def read_modules(directory: Path) -> tuple[ListedModule, ...] | None:
    """The modules of a directory, in order; None without modules.json.

    Raises:
        ModelError: malformed, or a module with code or call arguments of its own.
    """
    path = directory / MODULES_FILE
    listed = read_json(path)
    if listed is None:
        return None
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise ModelError("malformed", where=path, expected="a list of modules", found=type(listed).__name__)
    return tuple(_listed(path, entry) for entry in listed)


def _listed(path: Path, entry: dict[str, Any]) -> ListedModule:
    keys = Keys(path, entry, harmless=("idx", "name"))
    class_path, folder = keys.take("type", str, ""), keys.take("path", str, "")
    if not class_path.startswith(_PACKAGES):
        keys.refuse(
            "type",
            what="a class outside sentence-transformers; code of a checkpoint is never run",
            expected="modules of sentence-transformers",
        )
    if keys.take("kwargs", list, []):
        keys.refuse("kwargs", expected="no arguments of the module's call")
    keys.close()
    if folder.startswith("/") or ".." in Path(folder).parts:
        keys.refuse("path", expected="a folder of the model directory")
    return ListedModule(class_path.rsplit(".", 1)[-1], path.parent / folder)


def check_module(module: ListedModule) -> None:
    """Check the keys of a module whose configuration is only recognised, not used.

    Raises:
        ModelError: an unknown key.
    """
    known = MODULE_KEYS.get(module.kind)
    if known is not None:
        Keys.read(module.directory / "config.json", harmless=known.split()).close()


def read_pooling(module: ListedModule) -> Pooling:
    """The pooling that a module makes.

    Raises:
        ModelError: an unknown key or mode.
    """
    keys = module.keys()
    for size in ("embedding_dimension", "word_embedding_dimension"):
        keys.take(size, int, 0)
    older = tuple(mode for key, mode in _OLDER_MODES.items() if keys.take(key, bool, False))
    stated = keys.take("pooling_mode", object, None)
    modes = tuple(stated) if isinstance(stated, list) else (stated,) if stated else older or ("mean",)
    if not modes or not set(modes) <= set(POOLING_MODES):
        keys.refuse("pooling_mode", expected=" or ".join(POOLING_MODES))
    include_prompt = keys.take("include_prompt", bool, True)
    keys.close()
    return Pooling(modes, include_prompt)  # type: ignore[arg-type]


def read_steps(modules: Sequence[ListedModule], feature: str) -> tuple[Step, ...]:
    """The layers that follow the pooling (`feature` SENTENCE), or the transformer of a multi-vector encoder (TOKENS).

    Raises:
        ModelError: an unknown key, a module that reads or writes another feature, or a module that is no such layer.
    """
    steps: list[Step] = []
    for module in modules:
        keys = module.keys()
        if module.kind == "Dense":
            steps.append(_dense(module, keys, feature))
        elif module.kind == "Normalize":
            # Without its feature the layer does nothing.
            if _feature(keys, "module_input_name", (SENTENCE, TOKENS), SENTENCE) == feature:
                steps.append(UnitLength())
            _feature(keys, "module_output_name", (feature,), feature)
        elif module.kind == "LayerNorm" and feature == SENTENCE:
            steps.append(LayerNorm(module.directory, keys.take("dimension", int, 0)))
        elif module.kind == "Dropout":
            keys.take("dropout", object, None)
        else:
            raise ModelError(
                f"the module {module.kind} is not supported here",
                where=module.directory,
                expected="Dense, Normalize, LayerNorm or Dropout after the pooling",
            )
        keys.close()
    return tuple(steps)


def _feature(keys: Keys, key: str, allowed: tuple[str, ...], default: str) -> str:
    return str(keys.choice(key, allowed, default))


def _dense(module: ListedModule, keys: Keys, feature: str) -> DenseLayer:
    # A multi-vector encoder redirects layers that name no feature.
    _feature(keys, "module_input_name", (feature,), feature)
    _feature(keys, "module_output_name", (feature,), feature)
    path = keys.take("activation_function", str, "torch.nn.modules.activation.Tanh")
    activation = path.rsplit(".", 1)[-1]
    if not path.startswith("torch.nn.") or activation not in ACTIVATIONS:
        keys.refuse("activation_function", expected=f"a class of torch.nn: {', '.join(ACTIVATIONS)}")
    return DenseLayer(
        module.directory,
        keys.take("in_features", int, 0),
        keys.take("out_features", int, 0),
        keys.take("bias", bool, True),
        activation,
        keys.take("use_residual", bool, False),
    )


def read_splade(module: ListedModule) -> Splade:
    """The pooling of a sparse encoder.

    Raises:
        ModelError: an unknown key or value.
    """
    keys = module.keys()
    for size in ("embedding_dimension", "word_embedding_dimension", "chunk_size"):
        keys.take(size, int, 0)
    strategy = keys.choice("pooling_strategy", ("max", "sum"), "max")
    activation = keys.choice("activation_function", ("relu", "log1p_relu"), "relu")
    keys.close()
    return Splade(strategy, activation)


def read_logit_score(module: ListedModule) -> tuple[int, int | None]:
    """The ids of the tokens whose logits make a score: logit(true) - logit(false), or logit(true) alone.

    Raises:
        ModelError: an unknown key or value.
    """
    keys = module.keys()
    keys.choice("module_input_name", ("causal_logits",), "causal_logits")
    true_id, false_id = keys.take("true_token_id", int, -1), keys.take("false_token_id", int, -1)
    if true_id < 0:
        keys.refuse("true_token_id", expected="the id of a token")
    keys.close()
    return true_id, None if false_id < 0 else false_id


def read_mask(module: ListedModule) -> ScoringMask:
    """The mask of a multi-vector encoder.

    Raises:
        ModelError: an unknown key or value.
    """
    keys = module.keys()
    words = keys.texts("skiplist_words") or ()
    if isinstance(tasks := keys.take("skiplist_tasks", object, None), str):
        skip_in: tuple[str, ...] = (tasks,)
    else:
        skip_in = keys.texts("skiplist_tasks") or (("document",) if tasks is None else ())
    keep_ids = tuple(keys.take("keep_only_token_ids", list, []))
    keys.close()
    return ScoringMask(words, tuple(sorted(set(skip_in))), keep_ids)


def read_expansion(keys: Keys) -> Expansion | None:
    """The value of `query_expansion`, in the form of sentence-transformers 6.

    Raises:
        ModelError: an unknown key or value.
    """
    own = keys.nested("query_expansion")
    strategy = own.choice("strategy", (None, "fixed", "min"), None)
    attend, token, length = own.take("attend", bool, False), own.take("token", str, ""), own.number("length")
    own.close()
    if strategy is None:
        return None
    if length is None:
        own.refuse("length", expected="the tokens of a query after it is filled up")
    return Expansion(length or 0, strategy == "fixed", attend, token or None)


def read_transformer(directory: Path) -> TransformerConfig:
    """The configuration of the Transformer module in a directory.

    Raises:
        ModelError: an unknown key or value, or arguments that change how model and tokenizer are loaded or called.
    """
    path = next((path for name in TRANSFORMER_FILES if read_json(path := directory / name)), None)
    if path is None:
        return TransformerConfig()
    keys = Keys.read(path, harmless=("unpad_inputs", "cache_dir"))
    task, (modalities, message_format) = keys.take("transformer_task", str, ""), _modalities(keys)
    if keys.take("tokenizer_name_or_path", str, ""):
        keys.refuse("tokenizer_name_or_path", expected="the tokenizer beside the weights")
    most = keys.number("max_seq_length")
    for name in ("model_args", "model_kwargs"):
        keys.nested(name, harmless=(*HARMLESS_MODEL_ARGUMENTS, "trust_remote_code")).close()
    for name in ("config_args", "config_kwargs"):
        keys.nested(name, harmless=("torch_dtype", "dtype", "trust_remote_code")).close()
    for name in ("tokenizer_args", "processor_kwargs"):
        own = keys.nested(name, harmless=("trust_remote_code", "use_fast", "padding_side"))
        most = own.number("model_max_length") or most
        own.close()
    found = TransformerConfig(
        task=task,
        max_seq_length=most,
        max_length=_called_with(keys),
        query_length=keys.number("query_length"),
        document_length=keys.number("document_length"),
        states_expansion="query_expansion" in keys,
        expansion=read_expansion(keys),
        lower_case=keys.take("do_lower_case", bool, False),
        modalities=modalities,
        message_format=message_format,
    )
    keys.close()
    return found


_OUTPUTS = {TOKENS: ("last_hidden_state", "logits"), "scores": ("logits",), "causal_logits": ("logits",)}


def _modalities(keys: Keys) -> tuple[tuple[str, ...], str]:
    """Kinds of input, and the format of messages.

    Text must go through the model's forward pass, to the output that its task has by default.
    """
    output = keys.choice("module_output_name", tuple(_OUTPUTS), TOKENS)
    own = keys.nested("modality_config")
    names, message_format = tuple(keys.take("modality_config", dict, {})) or ("text",), "auto"
    for name in names:
        entry = own.nested(name, harmless=() if name == "message" else ("format",))
        if name in ("text", "message"):
            if name == "message":
                message_format = entry.choice("format", ("flat", "structured", "auto"), "auto")
            entry.choice("method", ("forward",), "forward")
            entry.choice("method_output_name", _OUTPUTS[output], _OUTPUTS[output][0])
            entry.close()
    return names, message_format


def _called_with(keys: Keys) -> int | None:
    """The length in `processing_kwargs`, which hold arguments of the tokenizer's call and of the chat template."""
    own = keys.nested("processing_kwargs", harmless=("image", "audio", "video"))
    text = own.nested("text", harmless=("padding", "logits_to_keep"))
    text.choice("truncation", (True, "longest_first"), True)
    length = text.number("max_length")
    text.close()
    common = own.nested("common", harmless=("padding",))
    common.choice("return_tensors", ("pt",), "pt")
    common.close()
    template = own.nested("chat_template")
    template.choice("restore_suffix", (True,), True)
    template.close()
    own.close()
    return length

"""Scores that do not share this project's reading of a model: from the library that the model's directory belongs to.

A directory of sentence-transformers is loaded and called by its own class, any other cross-encoder by the pair call of
transformers, one pair at a time in float32 on the CPU. No tokenisation, padding or pooling of this project takes part.
Forms that no library has a class for are scored by this project's forward pass, one pair at a time, and `by` says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PrepError
from students.identity import student_file
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.definition import PROMPTED, Family
from teachers.checkpoints.model_files import read_object
from teachers.scorer import Pairs

_TYPES = "token_type_ids"
MODULES, CONFIG = "modules.json", "config_sentence_transformers.json"
CLASSES = ("CrossEncoder", "SentenceTransformer", "SparseEncoder", "MultiVectorEncoder")
_BY_MODULE = {
    "LogitScore": "CrossEncoder", "SpladePooling": "SparseEncoder", "MultiVectorMask": "MultiVectorEncoder",
}  # fmt: skip
"""Module that only one class has → the class, for directories that do not name theirs."""


_OPTIONS: dict[str, dict[str, Any]] = {
    "SentenceTransformer": {"convert_to_tensor": True},
    "SparseEncoder": {"convert_to_tensor": True, "convert_to_sparse_tensor": False},
    "MultiVectorEncoder": {},
}
"""What makes each class return tensors."""


class Expected(NamedTuple):
    """Scores and where they come from."""

    scores: NDArray[np.float32]
    """(N,)"""
    by: str
    """The library's class, as a message names it."""
    note: str | None = None
    """How the call differed from the library's default."""


class NotInstalledError(PrepError):
    """The library that the model belongs to is not installed."""


def library_class(directory: Path) -> str | None:
    """The sentence-transformers class that a directory belongs to; None if it belongs to none."""
    if not any((directory / name).is_file() for name in (MODULES, CONFIG)):
        return None
    named = read_object(directory / CONFIG).get("model_type")
    if named in CLASSES:
        return str(named)
    text = (directory / MODULES).read_text(encoding="utf-8") if (directory / MODULES).is_file() else ""
    known = next((found for module, found in _BY_MODULE.items() if module in text), None)
    classifier = any("ForSequenceClassification" in name for name in _architectures(directory))
    return known or ("CrossEncoder" if classifier else "SentenceTransformer")


def cross_encoder_scores(checkpoint: Checkpoint, pairs: Pairs, facts: Mapping[str, Any]) -> Expected:
    """Raw logits (N,) of a cross-encoder.

    Args:
        checkpoint: of the model.
        pairs: to score.
        facts: of the score file: `max_length_tokens`, `truncation` and, if the file has it, `token_types`.

    Raises:
        NotInstalledError: sentence-transformers is needed.
    """
    if checkpoint.definition.family is Family.ENCODER_DECODER:
        return _by_first_token(checkpoint, pairs, facts)
    if checkpoint.definition.family in PROMPTED:
        return _by_cross_encoder(checkpoint.directory, pairs, facts)
    if library_class(checkpoint.directory) == "CrossEncoder" and facts["truncation"] == "longest_first":
        return _by_cross_encoder(checkpoint.directory, pairs, facts)
    return _by_transformers(checkpoint, pairs, facts)


def separate_scores(checkpoint: Checkpoint, pairs: Pairs, facts: Mapping[str, Any]) -> Expected:
    """Scores (N,) of a model that encodes query and passage separately, times the `scale` of the score file.

    Raises:
        NotInstalledError: sentence-transformers is needed.
    """
    name = library_class(checkpoint.directory)
    settings = ((student_file(checkpoint.directory) or {}).get("settings") or {}).get("student") or {}
    # The library has no counterpart of mask tokens after the last separator.
    if name is None or name == "CrossEncoder" or settings.get("query_masks"):
        from students.inference.teaching import plain_apart_scores

        prompts = tuple(facts["prompts"]) if "prompts" in facts else None
        scores = plain_apart_scores(str(checkpoint.directory), pairs, prompts)
        return Expected(scores, "this project's own pass, one pair at a time")
    model = _load(name, checkpoint.directory)
    if settings and not settings["expand_queries"]:
        # Students saved by earlier versions do not carry the limit of their queries.
        model[0].query_length, model[0].document_length = settings["max_query_tokens"], settings["max_passage_tokens"]
    if "prompts" in facts:
        _set_prompts(model, checkpoint, facts["prompts"])
    options: dict[str, Any] = {"batch_size": 1, "show_progress_bar": False, **_OPTIONS[name]}
    queries, passages = model.encode_query(pairs.queries, **options), model.encode_document(pairs.passages, **options)
    similar = [
        float(model.similarity([queries[query]], [passages[passage]])[0, 0])
        if name == "MultiVectorEncoder"
        else float(model.similarity(queries[query][None], passages[passage][None])[0, 0])
        for query, passage in zip(pairs.query, pairs.passage, strict=True)
    ]
    scale = np.float32(facts.get("scale") or 1)
    return Expected(np.array(similar, np.float32) * scale, f"sentence-transformers' {name}")


def _set_prompts(model: Any, checkpoint: Checkpoint, prompts: Sequence[str]) -> None:
    """Give the library's model the prompts that the scores were made with, behind markers that it has of its own."""
    for side, stated, used in zip(("query", "document"), checkpoint.definition.prompts, prompts, strict=True):
        marker = (model.prompts.get(side) or "").removesuffix(stated)
        model.prompts[side] = marker + used


def _by_cross_encoder(directory: Path, pairs: Pairs, facts: Mapping[str, Any]) -> Expected:
    from torch import nn

    length = facts["max_length_tokens"]
    model = _load("CrossEncoder", directory, max_length=length)
    note = _set_types(model.tokenizer, facts)
    query_prompt, passage_prompt = facts.get("prompts") or ("", "")
    model.default_prompt_name = None
    rows = [
        (pairs.queries[query], passage_prompt + pairs.passages[passage])
        for query, passage in zip(*pairs[2:], strict=True)
    ]
    prompt = facts.get("instruction") or query_prompt or None
    scores = model.predict(rows, batch_size=1, activation_fn=nn.Identity(), show_progress_bar=False, prompt=prompt)
    return Expected(np.asarray(scores, np.float32).reshape(-1), "sentence-transformers' CrossEncoder", note)


# Prompt, the word of a relevant passage and that of another one; sources in `teachers.checkpoints.encoder_decoder`.
_ANSWERS = {
    "monot5": ("Query: {} Document: {} Relevant:", "▁true", "▁false"),
    "mt5": ("Query: {} Document: {} Relevant:", "▁yes", "▁no"),
    "rankt5": ("Query: {} Document: {}", "<extra_id_10>", None),
}


def _by_first_token(checkpoint: Checkpoint, pairs: Pairs, facts: Mapping[str, Any]) -> Expected:
    """Logits of the first token that an encoder-decoder generates; the end of a prompt that is too long is kept."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from teachers.checkpoints.loading import quiet_loading

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with quiet_loading():
        model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint.directory, dtype=torch.float32, **local).eval()
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.directory, **local)
    prompt, *words = _ANSWERS[facts["form"]]
    ids = [tokenizer.convert_tokens_to_ids(word) for word in words if word is not None]
    start = torch.tensor([[model.config.decoder_start_token_id]])
    scores = []
    with torch.inference_mode():
        for query, passage in zip(pairs.query, pairs.passage, strict=True):
            text = prompt.format(pairs.queries[query], pairs.passages[passage]) + tokenizer.eos_token
            tokens = tokenizer(text, add_special_tokens=False).input_ids
            if len(tokens) > facts["max_length_tokens"]:
                end = tokenizer(prompt.rpartition("{}")[2] + tokenizer.eos_token, add_special_tokens=False).input_ids
                tokens = [*tokens[: facts["max_length_tokens"] - len(end)], *end]
            logits = model(input_ids=torch.tensor([tokens]), decoder_input_ids=start).logits[0, 0, ids]
            scores.append(float(logits[0] - logits[1] if len(ids) > 1 else logits[0]))
    return Expected(np.array(scores, np.float32), "transformers")


def _by_transformers(checkpoint: Checkpoint, pairs: Pairs, facts: Mapping[str, Any]) -> Expected:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from teachers.checkpoints.loading import quiet_loading

    local = {"local_files_only": True, "trust_remote_code": False}
    with quiet_loading():
        if checkpoint.is_bert_cat:  # no library has its class
            from teachers.checkpoints.bert_cat import load_bert_cat

            model: Any = load_bert_cat(checkpoint).float().eval()
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.tokenizer_directory, config=model.config, **local)
            takes = inspect.signature(model.encoder.forward).parameters
        else:
            where = checkpoint.directory
            model = AutoModelForSequenceClassification.from_pretrained(where, dtype=torch.float32, **local).eval()
            tokenizer = AutoTokenizer.from_pretrained(where, **local)
            takes = inspect.signature(model.forward).parameters
    note = _set_types(tokenizer, facts)
    pairs = pairs.prompted(tuple(facts.get("prompts") or ("", "")))
    scores = []
    with torch.inference_mode():
        for query, passage in zip(pairs.query, pairs.passage, strict=True):
            texts = pairs.queries[query], pairs.passages[passage]
            inputs = tokenizer(
                *texts, truncation=facts["truncation"], max_length=facts["max_length_tokens"], return_tensors="pt"
            )
            scores.append(float(model(**{name: ids for name, ids in inputs.items() if name in takes}).logits[0, 0]))
    return Expected(np.array(scores, np.float32), "transformers", note)


def _set_types(tokenizer: Any, facts: Mapping[str, Any]) -> str | None:
    """Let the tokenizer return token types where the scores were made with them, and none where without.

    Returns a note where that is not its default, because the model was given something else on purpose.
    """
    given, names = facts.get("token_types"), tokenizer.model_input_names
    if given is None or given == (_TYPES in names) or not any(tokenizer("a", "b", return_token_type_ids=True)[_TYPES]):
        return None
    tokenizer.model_input_names = [*names, _TYPES] if given else [name for name in names if name != _TYPES]
    return f"compared {'with' if given else 'without'} token types, unlike the tokenizer's default"


def _architectures(directory: Path) -> list[str]:
    return read_object(directory / "config.json").get("architectures") or []


def _load(name: str, where: Path, **options: Any) -> Any:
    """A model of the sentence-transformers class."""
    if find_spec("sentence_transformers") is None:
        raise NotInstalledError(
            "sentence-transformers, to which this model belongs, is not installed",
            where=where,
            todo="pip install 'prep-distillation[verify]'",
        )
    import sentence_transformers

    from teachers.checkpoints.loading import loading

    with loading(f"a {name} of sentence-transformers", where):
        return getattr(sentence_transformers, name)(str(where), device="cpu", local_files_only=True, **options)

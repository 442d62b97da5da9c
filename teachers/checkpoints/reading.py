"""Reads a model directory into its definition; see `teachers.checkpoints.definition`."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ModelError
from pipeline.fingerprint import digest_json
from teachers.checkpoints.definition import JOINT, NO_LIMIT, PROMPTED, Definition, Family, Prompts
from teachers.checkpoints.families import CHAT, Files, family_of, is_decoder
from teachers.checkpoints.known_keys import TOKENIZER_KEYS
from teachers.checkpoints.model_files import Keys, read_object
from teachers.checkpoints.modules import (
    SENTENCE,
    TOKENS,
    Expansion,
    ScoringMask,
    TransformerConfig,
    UnitLength,
    check_module,
    read_expansion,
    read_logit_score,
    read_mask,
    read_modules,
    read_pooling,
    read_splade,
    read_steps,
    read_transformer,
)

CONFIG = "config.json"
STUDENT_FILE = "prep.json"
"""The student file: `students.settings` has the same name, and imports nothing from here."""
LIBRARY_CONFIG = "config_sentence_transformers.json"
_REFUSED = {
    "adapter_config.json": "a PEFT adapter",
    "preprocessor_config.json": "a model of images, audio or video",
    "video_preprocessor_config.json": "a model of images, audio or video",
    "processor_config.json": "a model of images, audio or video",
}
_SIMILARITIES = {
    "MultiVectorEncoder": ("maxsim", "meanmaxsim"),
    "ColBERT": ("maxsim", "meanmaxsim", "cosine", "dot"),
}
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_MORE_TEMPLATES = "additional_chat_templates"
# What sentence-transformers takes for the sign of a template whose contents are lists (InputFormatter._infer_format).
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
# Positions before the first token's, in models that count them from the padding index on.
_COUNTED_FROM_PADDING = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
)
_PYLATE = (
    "query_length",
    "document_length",
    "query_expansion",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "query_prefix",
    "document_prefix",
    "skiplist_words",
)


def refuse_files(directory: Path) -> None:
    """Refuse a directory by a file that makes another model of it than its weights and config.json say.

    Raises:
        ModelError: names the file.
    """
    for name, what in _REFUSED.items():
        if (directory / name).is_file():
            raise ModelError(
                f"{what}: not supported",
                where=directory / name,
                expected="a text model with all its weights",
                todo="merge the adapter into its base model: merge_and_unload" if "adapter" in name else None,
            )
    config = read_object(directory / CONFIG)
    for key, what in (
        ("auto_map", "code of a checkpoint is never run"),
        ("quantization_config", "quantised weights are not supported"),
    ):
        if config.get(key):
            raise ModelError(f"{key}: {what}", where=directory / CONFIG, found=str(config[key])[:200])


def read_definition(directory: Path, tokenizer_directory: Path) -> Definition:
    """Read every file that defines the model in a directory.

    Raises:
        ModelError: a file is malformed, or has a key or value that is not understood; names the file and the key.
    """
    refuse_files(directory)
    modules = read_modules(directory)
    tokenizer = _read_tokenizer(tokenizer_directory)
    library = _read_library(directory) if modules is not None else Library()
    files = Files(
        directory,
        read_object(directory / CONFIG),
        read_object(directory / STUDENT_FILE),
        modules,
        library.model_type,
        read_transformer(directory) if modules is not None else TransformerConfig(),
        tokenizer.has_template,
    )
    family, detail = family_of(files)
    found = Definition(
        directory,
        family,
        detail,
        trained_here=bool(files.student),
        chat_template=family is Family.CHAT_CLASSIFIER,
        lower_case=files.transformer.lower_case,
        facts=files.student,
    )
    if family in JOINT:
        limits = [files.transformer.max_seq_length or tokenizer.max_length, files.transformer.max_length]
        stated = [limit for limit in limits if limit is not None]
        return replace(found, max_length_tokens=min(stated, default=None), prompts=Prompts(library.default_prompt))
    if family in (Family.BI_ENCODER, Family.MULTI_VECTOR, Family.SPARSE):
        return _separate(found, files, library, tokenizer)
    if family in PROMPTED:
        return _prompted(found, files, library, tokenizer)
    for module in modules or ():
        check_module(module)
    return found


def _prompted(found: Definition, files: Files, library: Library, tokenizer: Tokenizer) -> Definition:
    """A definition of a model that reads query and passage inside a prompt."""
    limits = [files.transformer.max_seq_length or tokenizer.max_length, files.transformer.max_length]
    found = replace(found, max_length_tokens=min((limit for limit in limits if limit is not None), default=None))
    if found.family is Family.ENCODER_DECODER:
        if files.modules is not None or files.is_a("ForSequenceClassification"):
            raise ModelError(
                "an encoder-decoder with modules or a head of its own: not supported",
                where=found.directory,
                expected="an encoder-decoder that answers with a token, as monoT5 does",
                found=found.detail,
            )
        return found
    if found.family is Family.CHAT_CLASSIFIER and not is_decoder(files):
        raise ModelError(
            f"{found.family.value}: supported for decoders alone", where=found.directory, found=found.detail
        )
    if not tokenizer.has_template or (files.modules is not None and CHAT not in files.transformer.modalities):
        raise ModelError(
            f"{found.family.value}: without a chat template it is not supported",
            where=found.directory,
            expected="a chat template that renders messages of the roles query and document",
            found=found.detail,
            todo="save the tokenizer with the template that the model was trained with (tokenizer.chat_template)",
        )
    if any("strftime_now" in text for text in tokenizer.templates):
        raise ModelError(
            "its chat template writes the date into the prompt, so its scores would change every day",
            where=found.directory,
            expected="a template that renders a pair alike each time",
        )
    scores = [module for module in files.modules or () if module.kind == "LogitScore"]
    if files.modules is not None and len(files.modules) > 1 + len(scores):
        raise ModelError(f"{found.family.value}: with further modules it is not supported", where=found.directory)
    answer: tuple[int | str, int | str | None] | None = ("yes", "no")
    if found.family is Family.CHAT_CLASSIFIER:
        answer = None
    elif scores:
        answer = read_logit_score(scores[0])
    stated, texts = files.transformer.message_format, tokenizer.templates
    structured = any(pattern in texts[0] for pattern in _STRUCTURED)
    return replace(
        found,
        chat_template=True,
        instruction=library.default_prompt or None,
        template=digest_json(texts),
        message_format="structured" if (structured if stated == "auto" else stated == "structured") else "flat",
        answer=answer,
    )


class Tokenizer(NamedTuple):
    """What tokenizer_config.json says that the tokenizer does not do by itself."""

    max_length: int | None
    templates: tuple[str, ...]
    """Chat templates, as transformers looks for them: the one in use first."""

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self.templates)


def _read_tokenizer(directory: Path) -> Tokenizer:
    keys = Keys.read(directory / "tokenizer_config.json", harmless=TOKENIZER_KEYS)
    if keys.take("auto_map", object, None):
        keys.refuse("auto_map", what="not supported: code of a checkpoint is never run")
    lengths = [keys.take(name, object, None) for name in ("model_max_length", "max_len")]
    stated = next((int(length) for length in lengths if isinstance(length, int | float)), NO_LIMIT)
    in_config = keys.take("chat_template", object, None)
    keys.close()
    in_files = [path.read_text(encoding="utf-8") for path in _template_files(directory)]
    templates = (
        *in_files,
        *([json.dumps(in_config) if isinstance(in_config, list) else str(in_config)] if in_config else []),
    )
    return Tokenizer(stated if 0 < stated < NO_LIMIT else None, templates)


def _template_files(directory: Path) -> list[Path]:
    """Files with chat templates; the file of one template comes first, as it does in transformers."""
    found = [directory / name for name in _TEMPLATES if (directory / name).is_file()]
    return [*found, *sorted((directory / _MORE_TEMPLATES).glob("*.jinja"))]


class Library(NamedTuple):
    """config_sentence_transformers.json."""

    model_type: str = "SentenceTransformer"
    prompts: Prompts = Prompts()
    """Of queries and passages that are encoded separately."""
    default_prompt: str = ""
    """Of pairs: it comes before the query."""
    unused_prompts: tuple[str, ...] = ()
    similarity: str | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    pylate: Pylate | None = None


class Pylate(NamedTuple):
    """Keys of PyLate in config_sentence_transformers.json, translated as sentence-transformers does."""

    prefixes: tuple[str, ...]
    query_length: int | None
    document_length: int | None
    expansion: Expansion | None
    skip_words: tuple[str, ...] | None


def _read_library(directory: Path) -> Library:
    harmless = ("__version__", "activation_fn", "keep_in_fp32_modules", "requirements")
    keys = Keys.read(directory / LIBRARY_CONFIG, harmless=harmless)
    model_type = keys.take("model_type", str, "SentenceTransformer")
    prompts = keys.take("prompts", dict, {})
    if not all(isinstance(text, str) or text is None for text in prompts.values()):
        keys.refuse("prompts", expected="a text for each name")
    default = keys.take("default_prompt_name", str, "")
    if default and default not in {*prompts, *(() if model_type == "CrossEncoder" else ("query", "document"))}:
        keys.refuse("default_prompt_name", expected="the name of a prompt")
    multi = model_type in ("MultiVectorEncoder", "ColBERT")
    prefixes = {"query": "", "document": ""}
    pylate = _read_pylate(keys, prefixes) if multi and any(key in keys for key in _PYLATE) else None
    sides = {
        side: prefix + (prompts.get(side) or "").removeprefix(prefix) if prefix else prompts.get(side) or ""
        for side, prefix in prefixes.items()
    }
    # encode_document takes the prompt "document", which exists even if it is empty.
    unused = () if sides["document"] else tuple(name for name in ("passage", "corpus") if prompts.get(name))
    similarity = keys.take("similarity_fn_name", str, "")
    if similarity and model_type != "CrossEncoder":
        keys.choice("similarity_fn_name", _SIMILARITIES.get(model_type, ("cosine", "dot")), "")
    if model_type == "ColBERT" and similarity in ("cosine", "dot"):
        similarity = ""  # of PyLate, which compares by MaxSim whatever it states
    found = Library(
        model_type,
        Prompts(sides["query"], sides["document"]),
        prompts.get(default) or "",
        unused,
        similarity or None,
        keys.number("truncate_dim"),
        keys.number("max_active_dims"),
        pylate,
    )
    keys.close()
    return found


def _read_pylate(keys: Keys, prefixes: dict[str, str]) -> Pylate:
    """Translate PyLate's keys; fills `prefixes`, which come before the prompts of the two sides."""
    for side in prefixes:
        prefixes[side] = keys.take(f"{side}_prefix", str, "")
    length, expansion = keys.number("query_length"), read_expansion(keys)
    attend = keys.take("attend_to_expansion_tokens", bool, keys.take("attend_to_mask_tokens", bool, False))
    if keys.take("do_query_expansion", bool, True) and "query_expansion" not in keys:
        expansion, length = Expansion(length or 32, attend=attend), None
    stated = tuple(prefix for prefix in prefixes.values() if prefix)
    return Pylate(stated, length, keys.number("document_length"), expansion, keys.texts("skiplist_words"))


def _separate(found: Definition, files: Files, library: Library, tokenizer: Tokenizer) -> Definition:
    """A definition of a model that encodes query and passage separately."""
    assert files.modules is not None
    transformer, limit = files.transformer, _limit(files, tokenizer)
    found = replace(
        found,
        prompts=library.prompts,
        unused_prompts=library.unused_prompts,
        similarity=library.similarity or "dot",
        truncate_dim=library.truncate_dim,
        max_length_tokens=limit,
        query_tokens=transformer.max_length or transformer.query_length or limit,
        passage_tokens=transformer.max_length or transformer.document_length or limit,
    )
    if found.family is Family.MULTI_VECTOR:
        return _multi_vector(found, files, library)
    if transformer.expansion is not None:
        raise ModelError(
            f"query_expansion is not supported in {found.family.value}",
            where=files.directory,
            expected="a multi-vector encoder, which scores the tokens that it adds",
        )
    if found.family is Family.SPARSE:
        return replace(
            found,
            splade=read_splade(files.modules[1]),
            max_active_dims=library.max_active_dims,
            normalize=library.similarity == "cosine",
        )
    steps = read_steps(files.modules[2:], SENTENCE)
    # What sentence-transformers compares by where nothing is stated; older students of this project mean products.
    similarity = library.similarity or ("dot" if found.trained_here else "cosine")
    at_end = bool(steps) and isinstance(steps[-1], UnitLength) and library.truncate_dim is None
    return replace(
        found,
        pooling=read_pooling(files.modules[1]),
        similarity=similarity,
        steps=steps[:-1] if at_end else steps,
        normalize=at_end or similarity == "cosine",
        scaled_by_module=any(isinstance(step, UnitLength) for step in steps),
    )


def _multi_vector(found: Definition, files: Files, library: Library) -> Definition:
    assert files.modules is not None
    transformer, pylate, rest = files.transformer, library.pylate, files.modules[1:]
    masks = [module for module in rest if module.kind == "MultiVectorMask"]
    mask = read_mask(masks[0]) if masks else ScoringMask()
    steps = read_steps([module for module in rest if module.kind != "MultiVectorMask"], TOKENS)
    expansion = transformer.expansion
    query, passage = transformer.query_length, transformer.document_length
    if pylate is not None:
        expansion = expansion if transformer.states_expansion else pylate.expansion
        query, passage = query or pylate.query_length, passage or pylate.document_length
    if library.model_type == "ColBERT":
        words = pylate.skip_words if pylate is not None else None
        mask = ScoringMask(tuple(string.punctuation) if words is None else words)
        steps = (*steps, UnitLength())
    query, passage = transformer.max_length or query, transformer.max_length or passage
    if expansion is not None:
        query = _expanded_length(expansion, query, transformer.max_length)
        if not masks and library.model_type != "ColBERT" and not expansion.attend:
            raise ModelError(
                "query_expansion without a MultiVectorMask, which would score its tokens",
                where=files.directory / "modules.json",
            )
    found = replace(
        found,
        similarity=library.similarity or "maxsim",
        steps=steps[:-1] if steps and isinstance(steps[-1], UnitLength) else steps,
        normalize=bool(steps) and isinstance(steps[-1], UnitLength),
        query_tokens=query or found.max_length_tokens,
        passage_tokens=passage or found.max_length_tokens,
        mask=mask,
        expansion=expansion,
        prefix_tokens=pylate.prefixes if pylate is not None else (),
    )
    return _as_trained(found) if found.trained_here else found


def _expanded_length(expansion: Expansion, stated: int | None, called_with: int | None) -> int | None:
    """The limit of a query that is filled up."""
    if expansion.fixed:
        return expansion.length
    return called_with or (max(stated, expansion.length) if stated else None)


def _as_trained(found: Definition) -> Definition:
    """Leave to the student file what it says: markers, which the directory states as prompts, and mask tokens."""
    own: dict[str, Any] = found.facts.get("settings", {}).get("student", {})
    markers = [own.get(name) or "" for name in ("query_marker", "passage_marker")]
    prompts = [prompt.removeprefix(f"{marker} ") for prompt, marker in zip(found.prompts, markers, strict=True)]
    expansion = None if own.get("expand_queries") else found.expansion
    return replace(found, prompts=Prompts(*prompts), expansion=expansion)


def _limit(files: Files, tokenizer: Tokenizer) -> int:
    """The tokens at which the library cuts a text."""
    config, transformer = files.config, files.transformer
    if transformer.max_length is not None:
        return transformer.max_length
    if transformer.max_seq_length is not None:
        return transformer.max_seq_length
    positions = config.get("max_position_embeddings")
    limit = tokenizer.max_length or NO_LIMIT
    if isinstance(positions, int) and positions > 0:
        padding = config.get("pad_token_id")
        skipped = (1 if padding is None else padding) + 1 if config.get("model_type") in _COUNTED_FROM_PADDING else 0
        limit = min(limit, positions - skipped)
    return limit

"""Which family a model directory belongs to, from its files. Imports neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from teachers.checkpoints.definition import Family
from teachers.checkpoints.modules import MODULES_FILE, TRANSFORMERS, ListedModule, TransformerConfig

BERT_CAT = "BERT_Cat"
"""`model_type` of the cross-encoders published from matchmaker."""
_DECODERS = (
    "bloom", "cohere", "falcon", "gemma", "glm", "gpt", "granite", "llama", "minicpm", "ministral", "mistral",
    "mixtral", "olmo", "opt", "phi", "qwen", "smollm", "stablelm", "starcoder",
)  # fmt: skip
_PUBLISHED_TYPES = ("TK", "PreTTR", "ColBERT", "BERT_Dot")
CHAT = "message"
"""Kind of input that goes through a chat template."""
_STUDENTS = {
    "bert_cat": Family.CLASSIFIER,
    "bert_dot": Family.BI_ENCODER,
    "colbert": Family.MULTI_VECTOR,
    "sparse": Family.SPARSE,
}


class Files(NamedTuple):
    """What the files of a directory say, before its family is known."""

    directory: Path
    config: dict[str, Any]
    student: dict[str, Any]
    """prep.json; empty if there is none."""
    modules: tuple[ListedModule, ...] | None
    model_type: str
    """Of the sentence-transformers class; SentenceTransformer if nothing is stated."""
    transformer: TransformerConfig
    has_template: bool
    """Whether the tokenizer has a chat template."""

    @property
    def architectures(self) -> list[str]:
        """Names of transformers' classes."""
        return list(self.config.get("architectures") or [])

    def is_a(self, ending: str) -> bool:
        """Whether the class of the weights has this ending."""
        return any(name.endswith(ending) for name in self.architectures)


def family_of(files: Files) -> tuple[Family, str]:
    """The family, and the name in a file that shows it."""
    if files.config.get("model_type") == BERT_CAT or BERT_CAT in files.architectures:
        return Family.BERT_CAT, BERT_CAT
    if files.student:
        name = str(files.student.get("architecture"))
        if files.modules is None and name not in ("bert_cat", "prettr", "tk"):
            return Family.PUBLISHED, name
        return _STUDENTS.get(name, Family.PUBLISHED), name
    return _without_modules(files) if files.modules is None else _of_modules(files, files.modules)


def is_decoder(files: Files) -> bool:
    """Whether the model is one of the families of language models, whose classifiers read the last token."""
    names = str(files.config.get("model_type")).lower()
    return any(names.startswith(family) for family in _DECODERS)


def _without_modules(files: Files) -> tuple[Family, str]:
    config, shown = files.config, ", ".join(files.architectures)
    if "HF_ColBERT" in files.architectures:
        return Family.STANFORD_COLBERT, shown
    if config.get("model_type") in _PUBLISHED_TYPES or "bert_model" in config or "encoder_type" in config:
        return Family.PUBLISHED, str(config.get("model_type"))
    if files.is_a("ForSequenceClassification"):
        return _classifier(files, CHAT if files.has_template else "")
    if files.is_a("ForCausalLM"):
        return Family.CAUSAL_LM, shown
    if config.get("is_encoder_decoder"):
        return Family.ENCODER_DECODER, shown
    if files.is_a("ForRetrieval") or files.is_a("ForConditionalGeneration"):
        return Family.OTHER, shown
    return Family.ENCODER, shown


def _classifier(files: Files, chat: str) -> tuple[Family, str]:
    shown = ", ".join(files.architectures)
    if chat:
        return Family.CHAT_CLASSIFIER, shown
    return (Family.ENCODER_DECODER if files.config.get("is_encoder_decoder") else Family.CLASSIFIER), shown


def _of_modules(files: Files, modules: tuple[ListedModule, ...]) -> tuple[Family, str]:
    kinds = [module.kind for module in modules]
    shown = f"{MODULES_FILE}: {files.model_type} of {', '.join(kinds)}"
    if "LogitScore" in kinds:
        return Family.LOGIT_SCORE, shown
    if kinds[0] not in TRANSFORMERS or modules[0].directory != files.directory:
        return Family.OTHER, f"{shown}, without a Transformer in the directory itself"
    if files.model_type == "CrossEncoder":
        return _cross_encoder(files, kinds, shown)
    if any(_gives_scores(module) for module in modules):
        return Family.MODULAR, shown
    if files.model_type == "SentenceTransformer" and len(kinds) == 1 and files.is_a("ForSequenceClassification"):
        return _classifier(files, CHAT if files.has_template else "")
    if CHAT in files.transformer.modalities:
        return Family.OTHER, f"{shown}, behind a chat template"
    return _encoder(files, kinds), shown


def _cross_encoder(files: Files, kinds: list[str], shown: str) -> tuple[Family, str]:
    if len(kinds) > 1:
        return Family.MODULAR, shown
    if files.transformer.task == "sequence-classification":
        return _classifier(files, CHAT if CHAT in files.transformer.modalities else "")
    return Family.OTHER, f"{shown}, with transformer_task {files.transformer.task!r}"


def _encoder(files: Files, kinds: list[str]) -> Family:
    """The family of a model that encodes query and passage separately."""
    task, pooled = files.transformer.task, kinds[1:2] == ["Pooling"]
    if files.config.get("is_encoder_decoder") and not _has_encoder(files):
        return Family.ENCODER_DECODER
    if "SpladePooling" in kinds:
        masked = kinds[0] == "MLMTransformer" or task == "fill-mask"
        fits = files.model_type == "SparseEncoder" and len(kinds) == 2 and masked
        return Family.SPARSE if fits else Family.OTHER
    if task in ("", "feature-extraction") and kinds[0] == "Transformer":
        if files.model_type in ("MultiVectorEncoder", "ColBERT"):
            return Family.MULTI_VECTOR
        if files.model_type == "SentenceTransformer" and pooled:
            return Family.BI_ENCODER
    return Family.OTHER


def _has_encoder(files: Files) -> bool:
    """Whether the encoder of an encoder-decoder can be loaded by itself."""
    return files.config.get("model_type") in ("t5", "mt5", "umt5")


def _gives_scores(module: ListedModule) -> bool:
    return module.kind == "Dense" and module.keys().take("module_output_name", str, "") == "scores"

"""The definition of a model: everything that its directory says about how texts become scores, in one value.

In: the files beside the weights. Out: the model's family, and for families that run here prompts, limits, pooling,
similarity and the handling of tokens, as sentence-transformers and transformers read them. Each key of each file is
used, known to be harmless, or the model is refused by the file and the key (`model_files`, `modules`, and for the keys
that only a model's configuration class knows, `config_keys`). Imports neither torch nor transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.errors import ModelError
from teachers.checkpoints.modules import (
    DenseLayer,
    Expansion,
    Pooling,
    ScoringMask,
    Splade,
    Step,
)
from teachers.settings import ScoringSettings

log = logging.getLogger(__name__)

NO_LIMIT = 1 << 20
"""Tokens that no text reaches, for models whose files state no limit."""
OLDER_LIMITS = (30, 200)
"""Tokens of a query and of a passage that earlier versions kept of every bi-encoder that was not trained here."""


class Family(Enum):
    """What a directory holds. The value is its name in messages."""

    CLASSIFIER = "a cross-encoder: a sequence classifier"
    BERT_CAT = "a cross-encoder: a BERT_Cat"
    BI_ENCODER = "a bi-encoder"
    MULTI_VECTOR = "a multi-vector encoder"
    SPARSE = "a sparse encoder"
    PUBLISHED = "a ranker in a form of matchmaker or of this project"
    ENCODER = "an encoder without a head for scores"
    CAUSAL_LM = "a language model, which scores a pair by the logits of yes and no"
    LOGIT_SCORE = "a language-model reranker, which scores a pair by the logits of chosen words (LogitScore)"
    CHAT_CLASSIFIER = "a classifier that reads a pair through a chat template"
    MODULAR = "a modular cross-encoder, with a head of several modules"
    ENCODER_DECODER = "an encoder-decoder"
    STANFORD_COLBERT = "a ColBERT in the form of Stanford (HF_ColBERT)"
    OTHER = "a model of an unsupported form"


JOINT = frozenset({Family.CLASSIFIER, Family.BERT_CAT, Family.ENCODER})
"""Families that the teachers' engine runs; an encoder is refused there if its weights have no head."""
SEPARATE = frozenset({Family.BI_ENCODER, Family.MULTI_VECTOR, Family.SPARSE, Family.PUBLISHED})
"""Families that encode query and passage separately."""
PROMPTED = frozenset({Family.CAUSAL_LM, Family.LOGIT_SCORE, Family.CHAT_CLASSIFIER, Family.ENCODER_DECODER})
"""Families that read query and passage inside a prompt; the teachers' engine runs them too."""
STARTS = frozenset({Family.CAUSAL_LM, Family.ENCODER_DECODER})
"""Families that do not score as they are, but whose weights a student may start from."""


class Prompts(NamedTuple):
    """Texts that are put before every query and every passage."""

    query: str = ""
    passage: str = ""


_NO_PROMPTS, _SPLADE, _ALL_TOKENS = Prompts(), Splade(), ScoringMask()


@dataclass(frozen=True)
class Definition:
    """What a model directory says, beside its weights and its configuration class's own keys.

    The defaults of `prompts` and of the fields after it are the plain case; `reading` names what differs from it.
    """

    directory: Path
    family: Family
    detail: str = ""
    """What shows the family, for messages: a file and a name in it."""
    trained_here: bool = False
    """Whether the directory has a student file, whose limits hold."""
    chat_template: bool = False
    """Whether the library would render texts through the tokenizer's chat template."""
    max_length_tokens: int | None = None
    """Limit of a pair, or of a single text; None if the files state none."""
    query_tokens: int | None = None
    """Limit of a query of a model that encodes it separately."""
    passage_tokens: int | None = None
    prompts: Prompts = _NO_PROMPTS
    unused_prompts: tuple[str, ...] = ()
    """Names of prompts for passages that the library does not apply."""
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer normalises them."""
    prefix_tokens: tuple[str, ...] = ()
    """Prompts, or their first words, that must stay single tokens (PyLate)."""
    similarity: str = "dot"
    """dot or cosine; maxsim or meanmaxsim."""
    pooling: Pooling | None = None
    """None: not stated."""
    steps: tuple[Step, ...] = ()
    """Layers after the pooling, or after the states of tokens; a last scaling to unit length is `normalize`."""
    normalize: bool = False
    """Whether vectors are scaled to unit length at the end."""
    scaled_by_module: bool = False
    """Whether a module scales vectors to unit length."""
    truncate_dim: int | None = None
    """Values of a vector that are kept, before `normalize`."""
    splade: Splade = _SPLADE
    max_active_dims: int | None = None
    """Largest values of a sparse vector that are kept."""
    mask: ScoringMask = _ALL_TOKENS
    expansion: Expansion | None = None
    instruction: str | None = None
    """Text of a system message in the prompt; None: the template has its own, or none."""
    template: str = ""
    """Digest of the chat template of a family that reads a prompt."""
    message_format: Literal["flat", "structured"] = "flat"
    """How the chat template gets a text: as the content of a message, or as an entry in it."""
    answer: tuple[int | str, int | str | None] | None = None
    """Tokens, by id or text, whose logits are the score of a language model: the first, less the second if any."""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The student file."""

    def reading(self) -> dict[str, Any]:
        """What scores depend on and differs from the plain case, as JSON values; part of fingerprints.

        Earlier versions read the plain case alone, so plain models keep their fingerprints.
        """
        plain = Definition(self.directory, self.family)
        names = [name for name in _READ if getattr(self, name) != getattr(plain, name)]
        found: dict[str, Any] = {name: _plain_values(getattr(self, name)) for name in names}
        if self.family is not Family.MULTI_VECTOR and self.normalize and not self.scaled_by_module:
            found["similarity"] = "cosine"
        if self.similarity == "meanmaxsim":
            found["similarity"] = self.similarity
        if self.family is Family.MULTI_VECTOR and not _is_one_projection(self.steps):
            found["layers"] = [[type(step).__name__, *map(str, step[1:])] for step in self.steps]
        if not self.trained_here and self.family is not Family.PUBLISHED and self.family in SEPARATE:
            limits = (self.query_tokens, self.passage_tokens)
            found |= {} if limits == OLDER_LIMITS else {"limits": limits}
        return found

    def check_runs(self, role: str = "a teacher") -> None:
        """Refuse a model of a family that does not run here yet.

        Raises:
            ModelError: names the family.
        """
        if self.family not in JOINT | SEPARATE | PROMPTED:
            self._refuse(role)

    def _refuse(self, role: str) -> None:
        raise ModelError(
            f"{self.family.value}: not supported yet as {role}",
            where=self.directory,
            expected="a sequence classifier, BERT_Cat, language-model reranker, encoder-decoder, bi-encoder, "
            "multi-vector or sparse encoder",
            found=self.detail or None,
        )

    def check_starts(self) -> None:
        """Refuse a model that no student can start from.

        Raises:
            ModelError: names the family.
        """
        if self.family not in STARTS | JOINT | SEPARATE:
            self._refuse("the start of a student")

    def applied(self, settings: ScoringSettings) -> ScoringSettings:
        """The settings with the model's prompts where none are set, and with the model's limit where it is lower."""
        query, passage = settings.query_prompt, settings.passage_prompt
        own = self.prompts
        if self.unused_prompts and not passage:
            _warn(
                f"{self.directory}: sentence-transformers does not apply the prompt {self.unused_prompts[0]!r} to "
                "passages; --passage-prompt applies a text"
            )
        limit = min(settings.max_length_tokens, self.max_length_tokens or NO_LIMIT)
        together = self.family in JOINT | PROMPTED
        if limit < settings.max_length_tokens and together:
            _warn(f"{self.directory}: pairs are cut at {limit} tokens, as its files state")
        return replace(
            settings,
            query_prompt=own.query if query is None else query,
            passage_prompt=own.passage if passage is None else passage,
            max_length_tokens=limit if together else settings.max_length_tokens,
            instruction=self.instruction if settings.instruction is None else settings.instruction,
        )

    def prompting(self, settings: ScoringSettings) -> dict[str, Any]:
        """What the scores of a family that reads a prompt depend on besides; empty for the other families.

        `settings` have the model's prompts applied.
        """
        if self.family not in PROMPTED:
            return {}
        return {
            "template": self.template,
            "message_format": self.message_format,
            "instruction": settings.instruction,
            "answer": self.answer and list(self.answer),
            "form": settings.form,
        }


_READ = ("lower_case", "prefix_tokens", "truncate_dim", "splade", "max_active_dims", "mask", "expansion")


@cache
def _warn(message: str) -> None:
    """Log a warning once in a process."""
    log.warning("%s", message)


def _is_one_projection(steps: tuple[Step, ...]) -> bool:
    return not steps or (len(steps) == 1 and isinstance(steps[0], DenseLayer) and steps[0].is_linear)


def _plain_values(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain_values(one) for name, one in value._asdict().items()}
    return list(value) if isinstance(value, tuple) else value

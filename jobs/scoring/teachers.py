"""Teachers: how a run names one, the checkpoint that the name resolves to, and the scorer that is loaded from it.

A checkpoint is resolved and hashed once when the run is planned, and once in each process that loads it. The process
compares the two fingerprints, so that a node with other files is refused. Shards resolve nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.models.checkpoints import local_checkpoint
from jobs.models.stored_passages import find_stored
from pipeline.collection.texts import CACHE
from pipeline.errors import UsageError
from pipeline.fingerprint import digest_json
from pipeline.storage.atomic_files import write_if_absent
from pipeline.storage.workspace import Workspace
from students.identity import apart_fingerprint, reads_apart
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.definition import PROMPTED, Family
from teachers.settings import ScoringSettings

if TYPE_CHECKING:  # torch is loaded where scoring happens, not where it is planned
    from students.inference.teaching import SeparateTeacher
    from teachers.engine.engine import CrossEncoderScorer

SEPARATELY = "query and passage apart"
"""Value of `reads` in the description of a teacher that is no cross-encoder; part of score files, so it never changes.
"""


@dataclass(frozen=True)
class Teacher:
    """A teacher as the user names it."""

    name: str
    checkpoint: str
    """As `jobs.models.checkpoints.name_checkpoint` returns it."""
    settings: ScoringSettings

    def resolve(self) -> ResolvedTeacher:
        """Find the checkpoint on this machine and hash its files. Loads no weights into memory.

        Raises:
            ModelError: the checkpoint does not exist, or its files say something that is not understood.
            UsageError: a backend that only runs cross-encoders.
        """
        checkpoint = resolve(local_checkpoint(self.checkpoint))
        checkpoint.definition.check_runs()
        describe = _describe_separate if reads_apart(checkpoint) else _describe_cross_encoder
        return ResolvedTeacher(self, checkpoint, describe(self, checkpoint))


@dataclass(frozen=True)
class ResolvedTeacher:
    """A teacher with its checkpoint on this machine."""

    teacher: Teacher
    checkpoint: Checkpoint
    description: dict[str, Any]
    """Everything that its scores depend on; the settings of their recipe, in every score file."""

    @property
    def fingerprint(self) -> str:
        """Identity of the scores."""
        return str(self.description["fingerprint"])

    @property
    def prompts(self) -> tuple[str, str]:
        """Texts put before every query and before every passage."""
        return self.checkpoint.definition.applied(self.teacher.settings).prompts

    @property
    def reads_prompt(self) -> bool:
        """Whether query and passage are tokenised inside a prompt, so that stored tokens of texts are of no use."""
        return self.checkpoint.definition.family in PROMPTED

    @property
    def tokens_key(self) -> tuple[str, ...]:
        """What decides the token ids of texts: the tokenizer and the prompts."""
        return (self.checkpoint.tokenizer_hash, *self.prompts)

    def load(self, workspace: Workspace) -> CrossEncoderScorer | SeparateTeacher:
        """The scorer, with the weights in memory.

        Raises:
            ModelError: the checkpoint cannot be loaded.
            UsageError: a device, dtype, backend or limit that does not fit this machine or the model.
        """
        settings = self.teacher.settings
        if self.description.get("reads") == SEPARATELY:
            from students.inference.teaching import SeparateTeacher

            stored = find_stored(
                workspace, self.checkpoint.base_name, self.checkpoint, settings.dtype, prompts=self.prompts
            )
            return SeparateTeacher(self.checkpoint, settings, stored.take if stored else None)
        from teachers.engine.engine import load_scorer

        return load_scorer(self.checkpoint, settings)


def check_options(teachers: Sequence[ResolvedTeacher]) -> None:
    """Refuse options of families that none of the teachers belongs to.

    Raises:
        UsageError: names the option.
    """
    families = {resolved.checkpoint.definition.family for resolved in teachers}
    for option, value, users in (
        ("--form", "form", {Family.ENCODER_DECODER}),
        ("--instruction", "instruction", PROMPTED - {Family.ENCODER_DECODER}),
    ):
        given = {getattr(resolved.teacher.settings, value) for resolved in teachers} - {None}
        if given and not families & users:
            expected = " or ".join(sorted(family.value for family in users))
            raise UsageError(f"no teacher takes {option}", expected=expected, found=", ".join(map(str, given)))


def tuned_batch_tokens(workspace: Workspace, scorer: CrossEncoderScorer) -> int:
    """The token budget of one batch for this teacher on this type of device: measured once, then kept.

    The first process to finish decides for all (`.cache/budgets/`), so that parallel workers and resumed runs use the
    same batches. In an object store two processes that finish together may each use their own measurement, which
    changes only the last bits of scores.
    """
    name = digest_json([scorer.fingerprint, scorer.device_name])
    path = workspace.path(CACHE, "budgets", f"{name}.json")
    if not path.exists():
        facts = {"device": scorer.device_name, "batch_tokens": scorer.tune()}
        write_if_absent(path, json.dumps(facts).encode())
    return int(workspace.read_json(CACHE, "budgets", path.name)["batch_tokens"])


def _describe_cross_encoder(teacher: Teacher, checkpoint: Checkpoint) -> dict[str, Any]:
    settings = checkpoint.definition.applied(teacher.settings)
    return {
        "fingerprint": checkpoint.fingerprint(settings),
        "weights_hash": checkpoint.weights_hash,
        "tokenizer_hash": checkpoint.tokenizer_hash,
        "max_length_tokens": settings.max_length_tokens,
        "truncation": settings.truncation,
        **_prompts(checkpoint, settings),
        **checkpoint.definition.prompting(settings),
        "activation": "identity",
        "dtype": settings.dtype,
    }


def _prompts(checkpoint: Checkpoint, settings: ScoringSettings) -> dict[str, Any]:
    """The prompts, where the model or the user has some; models without any are described as they always were."""
    used = settings.prompts
    return {"prompts": list(used)} if any(used) or any(checkpoint.definition.prompts) else {}


def _describe_separate(teacher: Teacher, checkpoint: Checkpoint) -> dict[str, Any]:
    settings = checkpoint.definition.applied(teacher.settings)
    if settings.engine != "torch" or settings.compile or settings.token_types:
        compiled = "--compile" if settings.compile else settings.engine
        raise UsageError(
            "only cross-encoders run on another backend, compiled, or with token types given",
            where=teacher.checkpoint,
            found=f"--token-types {settings.token_types}" if settings.token_types else compiled,
            todo="score with this teacher in a separate run, without these options",
        )
    return {
        "fingerprint": apart_fingerprint(checkpoint, settings.dtype, settings.prompts),
        "weights_hash": checkpoint.weights_hash,
        "tokenizer_hash": checkpoint.tokenizer_hash,
        "reads": SEPARATELY,
        **_prompts(checkpoint, settings),
        "activation": "identity",
        "dtype": settings.dtype,
    }

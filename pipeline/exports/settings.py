"""Settings of an export, checked when built. Loads no Arrow or DuckDB."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import UsageError
from pipeline.exports.formats import FORMATS
from pipeline.settings import alternatives, check_settings, describe, setting

_NEGATIVES = ", ".join(f"{form.negatives} for {name}" for name, form in FORMATS.items() if form.negatives)


@dataclass(frozen=True)
class ExportSettings:
    """The rows to export, and the format."""

    form: str = field(
        metadata=describe(
            argument=True, metavar="FORMAT", help=f"Format of the trainer: {alternatives(tuple(FORMATS))}."
        )
    )
    triples: str = setting("default", metavar="NAME", help="Export this set of triples.")
    lists: str | None = setting(None, metavar="NAME", help="Export this set of n-way lists, instead of triples.")
    ids: bool = setting(False, flag=True, help="Write external ids instead of texts.")
    negatives: int | None = setting(
        None,
        minimum=1,
        unset=f"{_NEGATIVES}, else all",
        help="Number of negatives in each group, that is for each positive or query.",
    )
    seed: int = setting(0, help="Seed of the order of queries and of the sample of negatives.")
    licence: str = setting(
        "unknown", option="--license", metavar="NAME", help="Licence to name in the data set's card."
    )
    overwrite: bool = setting(False, flag=True, help="Replace an earlier export in the output directory.")

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"no format {self.form!r}", expected=alternatives(tuple(FORMATS)))
        check_settings(self)
        form = FORMATS[self.form]
        if self.ids and form.content == "texts":
            raise UsageError(f"format {self.form} needs texts", found="--ids", todo="leave out --ids")
        if self.negatives is not None and form.rows == "triples":
            raise UsageError(
                f"--negatives means nothing to format {self.form}, whose rows are triples", todo="leave out --negatives"
            )

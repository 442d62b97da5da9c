"""Which files a split of a data set has.

The `datasets` library resolves configurations and splits, from a README or from the names of files and directories. It
takes one format for all files and drops the others without a word: here a file that no configuration covers is an
error. No code of a data set is executed: the library refuses data sets that come with code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import InputError

FORMATS = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json", "ndjson": "json", "parquet": "parquet"}
"""Ending of a name → the format of the file, as `datasets` names it."""
READABLE = ("csv", "json", "parquet", "arrow")
_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst", ".zstd"}
_METADATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
# Settings of a configuration that do not change how its rows are read here. Any other must have its default.
_HARMLESS = {"name", "version", "data_dir", "data_files", "description", "features", "chunksize", "use_threads"}
_HARMLESS |= {"keep_default_na", "na_filter", "na_values", "parse_agent_traces", "on_mixed_types", "memory_map"}
_USED = {"sep", "delimiter"}


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split."""

    format: str
    """csv, json, parquet or arrow."""
    names: Sequence[str]
    """Absolute paths, or `hf://` addresses."""
    separator: str
    """Of CSV files; those whose name ends with .tsv have a tab where this is a comma."""
    others: Sequence[str]
    """Files of the data set that belong to no configuration and hold no rows."""


def split_files(name: str, config: str | None, split: str, revision: str | None, listed: Sequence[str]) -> SplitFiles:
    """Resolve the files of a split.

    Args:
        name: data set on the hub, or a directory.
        config: name of the configuration; None for the only one.
        split: name of the split.
        revision: of the data set on the hub.
        listed: all files of the data set, relative to its root.

    Raises:
        InputError: no such configuration or split, a format or a setting that is not read here, or a file of rows that
            no configuration covers.
    """
    where = Path("/".join(filter(None, [name, config, split])))
    builder = _builder(name, config, revision, where)
    files = {str(key): list(paths) for key, paths in (builder.config.data_files or {}).items()}
    if split not in files:
        raise InputError("no such split", where=where, expected=", ".join(files), todo="check --split")
    module = str(type(builder).__module__).rsplit(".", 1)[-1]
    if module not in READABLE:
        raise InputError(f"files of format {module!r}", where=where, expected=", ".join(READABLE))
    _refuse_settings(builder.config, where)
    configs = builder.builder_configs.values()
    covered = [
        path for one in (builder.config, *configs) for paths in (one.data_files or {}).values() for path in paths
    ]
    left = [file for file in listed if not any(_is_file(path, name, file) for path in covered)]
    rows = [file for file in left if _holds_rows(file)]
    # A README that names the files of each configuration may leave out others on purpose.
    if rows and not _names_files(builder):
        raise InputError(
            "files of the data set would be left out",
            where=where,
            expected=f"files of one format ({module})",
            found=", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else ""),
            todo="move them to a directory of their own, or name the files of each configuration in its README.md",
        )
    separator = str(getattr(builder.config, "sep", ","))
    return SplitFiles(module, files[split], separator, rows + [file for file in left if _is_unknown(file, rows)])


def _builder(name: str, config: str | None, revision: str | None, where: Path) -> Any:
    import datasets

    if Path(name).is_dir() and re.search(r"[*?[]", str(Path(name).absolute())):
        raise InputError("its name is taken for a pattern", where=name, expected="a path without *, ? and [")
    try:
        return datasets.load_dataset_builder(name, config, revision=revision)
    except Exception as error:  # errors of the library have no common root
        raise InputError("cannot be read", where=where, found=str(error)[:300]) from error


def _refuse_settings(config: Any, where: Path) -> None:
    """Refuse settings of a configuration that would change how its rows are read."""
    for field in type(config).__dataclass_fields__.values():
        value = getattr(config, field.name)
        if field.name not in _HARMLESS | _USED and value != field.default:
            raise InputError(
                f"its README sets {field.name!r}, which is not read here",
                where=where,
                expected=f"only {', '.join(sorted(_USED))}, and files with a header",
                found=repr(value)[:100],
            )


def _names_files(builder: Any) -> bool:
    return len(builder.builder_configs) > 1 or builder.config.name != "default"


def _is_file(path: str, name: str, file: str) -> bool:
    """Whether a resolved path is the file of the data set with this relative name."""
    if path.startswith("hf://"):
        return re.sub(r"^hf://datasets/[^@]*@[^/]*/", "", path) == file
    same = Path(path) in (Path(name).absolute() / file, (Path(name) / file).resolve())
    # The files of other configurations are patterns still.
    return same or fnmatchcase(file, path.removeprefix("./"))


def _holds_rows(file: str) -> bool:
    path = PurePosixPath(file)
    if any(part.startswith((".", "__")) for part in path.parts) or path.name in _METADATA:
        return False
    endings = [ending for ending in path.suffixes if ending not in _COMPRESSIONS]
    return bool(endings) and (endings[-1][1:].lower() in FORMATS or endings[-1] in (".arrow", ".zip", ".tar"))


def _is_unknown(file: str, rows: Sequence[str]) -> bool:
    """Whether the file is worth a line in the report."""
    path = PurePosixPath(file)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return not (hidden or file in rows or path.name in _METADATA or path.stem.upper() in ("README", "LICENSE"))

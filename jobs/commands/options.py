"""Makes the options of commands from settings classes, and reads options that several commands share.

A command declares a parameter of a settings class (see `pipeline.settings`); `with_settings` replaces it by one option
for each field and hands the command the object. `Options` in the annotation picks fields, changes defaults, or has the
values by key instead of the object. Typer gets what it reads anyway: a signature with annotated parameters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from pipeline.errors import UsageError
from pipeline.names import check_name
from pipeline.settings import Option, build_settings, options_of, setting

WORKSPACE_VARIABLE = "PREP_WORKSPACE"
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def default_workspace() -> str:
    """The workspace of a command without --workspace."""
    return os.environ.get(WORKSPACE_VARIABLE) or "./workspace"


WorkspaceOption = Annotated[
    str,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIRECTORY",
        help="Workspace: a directory, s3://… or gs://….",
        default_factory=default_workspace,
        show_default=f"${WORKSPACE_VARIABLE}, else ./workspace",
    ),
]
SummaryOption = Annotated[
    Path | None,
    typer.Option("--summary", metavar="FILE", help="Also write the summary to this file, as JSON.", show_default=False),
]
Processes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Number of worker processes.", show_default="one per core")
]


@dataclass(frozen=True)
class StaleSettings:
    """Whether a command uses stale sets; see `pipeline.tables.staleness`."""

    stale_ok: bool = setting(
        False,
        flag=True,
        help="Use sets although what they were made from has changed since; what is made from them records it.",
    )


@dataclass(frozen=True)
class Options:
    """Which fields of a settings class a command has as options."""

    kind: type | None = None
    """Settings class of a parameter that takes the values by key; None for a parameter of a settings class."""
    only: Sequence[str] = ()
    """Fields that become options; empty for all."""
    without: Sequence[str] = ()
    """Fields that do not become options."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of this command that differ from the settings class, by field."""

    def pick(self, kind: type) -> list[Option]:
        """The options of the settings class, in the order of its fields."""
        picked = [option for option in options_of(kind) if not self.only or option.name in self.only]
        return [option for option in picked if option.name not in self.without]


@dataclass(frozen=True)
class _Group:
    """A parameter of a command for which the command line has several options."""

    kind: type
    options: list[Option]
    defaults: Mapping[str, Any]
    by_key: bool

    def take(self, values: dict[str, Any]) -> Any:
        """Remove the options' values from those of a command line, and make settings of them."""
        taken = {option.key: _parse(option, values.pop(option.key)) for option in self.options}
        return taken if self.by_key else build_settings(self.kind, taken)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a settings class by the options of its fields."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    groups: dict[str, _Group] = {}
    for parameter in signature(command).parameters.values():
        group = _group(hints[parameter.name])
        if group is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=Parameter.KEYWORD_ONLY))
        else:
            groups[parameter.name] = group
            parameters += [
                _parameter(option, group.defaults.get(option.name, option.default)) for option in group.options
            ]

    @wraps(command)
    def run(**values: Any) -> None:
        command(**{name: group.take(values) for name, group in groups.items()}, **values)

    made: Any = run
    made.__signature__ = Signature(parameters)
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    made.settings = {option.key: option for group in groups.values() for option in group.options}
    return run


_UNBROKEN = "\N{NON-BREAKING HYPHEN}"


class PanelCommand(TyperCommand):
    """A command whose help groups options by panel, as plain text: rich would take "[Q]" in a text for markup."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options without a panel, then each panel."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or title, []).append(record)
        for title, rows in panels.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(left, text.replace("-", _UNBROKEN)) for left, text in rows])
        # The formatter wraps lines at hyphens, so "--num-actors" would be cut in two.
        formatter.buffer = [written.replace(_UNBROKEN, "-") for written in formatter.buffer]


class ListedOption(NamedTuple):
    """One option or argument of a command, for tests and documentation."""

    command: str
    """Words of the command, such as "import msmarco"."""
    parameter: Any
    """The command-line library's parameter: its words, help, default, metavar and panel."""
    setting: Option | None
    """The settings field that it was made from; None for an option of this command alone."""


def list_options(app: typer.Typer) -> Iterator[ListedOption]:
    """All options of all commands, in the order of the help."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[ListedOption]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*words, name))
        if not hasattr(command, "commands"):
            settings = getattr(command.callback, "settings", {})
            for parameter in command.params:
                yield ListedOption(" ".join(words), parameter, settings.get(parameter.name))

    return walk(typer.main.get_command(app), ())


def split_files(option: str, texts: list[str]) -> list[tuple[str, Path]]:
    """Parse SPLIT=FILE texts.

    >>> split_files("--queries", ["dev=queries.dev.tsv"])
    [('dev', PosixPath('queries.dev.tsv'))]

    Raises:
        UsageError: a text without "=" or without a file, or a bad name of a split.
    """
    files = []
    for text in texts:
        split, separator, path = text.partition("=")
        if not separator or not path:
            raise UsageError(f"malformed {option}", expected="SPLIT=FILE", found=repr(text))
        files.append((check_name("split", split), Path(path)))
    return files


def _group(hint: Any) -> _Group | None:
    """The settings group of a parameter's annotation; None if it is a parameter of the command alone."""
    base, *extras = get_args(hint) if get_origin(hint) is Annotated else [hint]
    options = next((extra for extra in extras if isinstance(extra, Options)), Options())
    kind = options.kind or base
    if not is_dataclass(kind) or not isinstance(kind, type) or not options_of(kind):
        return None
    return _Group(kind, options.pick(kind), options.defaults, options.kind is not None)


def _parameter(option: Option, default: Any) -> Parameter:
    """The parameter of a signature that Typer reads as the option."""
    about, kind = option.description, option.item
    shown: dict[str, Any] = {
        "help": option.help,
        "metavar": about.metavar or ("NAME" if option.choices else _METAVARS.get(kind)),
        "rich_help_panel": about.panel or None,
        "show_default": about.unset or False if default in (None, "", ()) and not about.none else True,
    }
    if about.argument:
        return _keyword(option.key, kind, typer.Argument(**shown), default)
    word = f"{option.word}/--no-{option.word[2:]}" if kind is bool and not about.flag else option.word
    if option.repeated or option.named:
        items = list(default or ())
        shown |= {"default_factory": lambda: items, "show_default": ", ".join(items) or about.unset or False}
        return _keyword(option.key, list[str] if option.named else list[kind], typer.Option(word, **shown))  # type: ignore[valid-type]
    if about.none:
        default = about.none if default is None else f"{default:g}"
        return _keyword(option.key, str, typer.Option(word, **shown), default)
    if kind in (int, float):
        shown |= {"min": about.minimum, "max": about.maximum}
    return _keyword(option.key, kind | None if default is None else kind, typer.Option(word, **shown), default)


def _keyword(name: str, kind: Any, info: Any, default: Any = MISSING) -> Parameter:
    known = Parameter.empty if default is MISSING else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=known, annotation=Annotated[kind, info])


def _parse(option: Option, value: Any) -> Any:
    """The setting's value from the value on the command line."""
    if option.named:
        return _named_numbers(option, value) or None
    if option.repeated:
        return tuple(value)
    if option.description.none:
        return _number_or_none(option, value)
    return value


def _number_or_none(option: Option, text: str) -> float | None:
    """Parse a number, or the word that means None."""
    if text.lower() == option.description.none:
        return None
    try:
        return float(text)
    except ValueError:
        expected = f"a number or {option.description.none!r}"
        raise UsageError(f"malformed {option.word}", expected=expected, found=repr(text)) from None


def _named_numbers(option: Option, texts: Sequence[str]) -> dict[str, float]:
    """Parse NAME=NUMBER texts."""
    numbers = {}
    for text in texts:
        name, separator, number = text.partition("=")
        try:
            numbers[check_name("teacher", name)] = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise UsageError(f"malformed {option.word}", expected=option.description.metavar, found=repr(text))
    return numbers

"""Settings classes: a dataclass field says a setting's name, default, range, choices and help text, once.

In: a frozen dataclass whose fields are made by `setting`. Out, all from the same fields: the checks of its values
(`check_settings`), its options for a command line or the keys of a recipe (`options_of`), an object built from values
by key (`build_settings`), and the words of a command that would give the same object (`command_words`).

Standard library only: models are trained and teachers score where no command-line library is installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from keyword import iskeyword
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pipeline.errors import UsageError

T = TypeVar("T")
_DESCRIPTION = "setting"
_TYPES: dict[Any, tuple[Any, str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    Path: ((Path,), "a path"),
}


@dataclass(frozen=True)
class Description:
    """What a field says about its setting beside its name, type and default."""

    help: str
    """A sentence that is understood without the lines around it. `{choices}` in it is replaced by the choices."""
    panel: str = ""
    """Group of related options in the help of a command."""
    option: str | None = ""
    """Name on the command line; "" derives it from the field's name, None keeps the setting off the command line."""
    metavar: str = ""
    """Name of the value in the help; "" derives it from the type."""
    minimum: float | None = None
    """Lowest allowed value."""
    above: float | None = None
    """Values must be greater than this."""
    maximum: float | None = None
    """Highest allowed value."""
    choices: tuple[str, ...] = ()
    """Allowed values; a field of a `Literal` type has its values as choices without saying so."""
    unset: str = ""
    """What happens where the value is None or empty; shown as the default."""
    none: str = ""
    """Word that means None on the command line."""
    flag: bool = False
    """A bool without a --no-… form."""
    argument: bool = False
    """A positional argument, not an option."""


def setting(default: T, *, help: str, **more: Any) -> T:  # noqa: A002
    """A dataclass field with a default and a `Description`, whose other fields are the keyword arguments.

    >>> @dataclass(frozen=True)
    ... class Pace:
    ...     batch_size: int = setting(32, help="Queries in one training step.", minimum=1)
    >>> Pace().batch_size
    32
    >>> command_words(Pace, {"batch_size": 64})
    ['--batch-size', '64']
    """
    return field(default=default, metadata=describe(help=help, **more))


def describe(**description: Any) -> dict[str, Description]:
    """Field metadata for a setting without a default: `field(metadata=describe(help=…))`."""
    return {_DESCRIPTION: Description(**description)}


@dataclass(frozen=True)
class Option:
    """One setting as the outside world names it."""

    owner: type
    """Settings class of the field."""
    name: str
    """Field name."""
    annotation: Any
    """Type of the field."""
    default: Any
    """Default of the field; `dataclasses.MISSING` if it has none."""
    description: Description

    @property
    def word(self) -> str:
        """Name on the command line, such as "--max-length"; the field's name if the setting is not an option."""
        if self.description.option is None or self.description.argument:
            return self.name
        return self.description.option or "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """Name in recipes and in Python: the option's name with underscores; the field's if that is a keyword."""
        key = self.word.removeprefix("--").replace("-", "_")
        return self.name if iskeyword(key) else key

    @property
    def optional(self) -> bool:
        """Whether None is allowed."""
        return NoneType in get_args(self.annotation)

    @property
    def base(self) -> Any:
        """Type without None."""
        kept = [kind for kind in get_args(self.annotation) if kind is not NoneType] if self.optional else []
        return kept[0] if kept else self.annotation

    @property
    def repeated(self) -> bool:
        """Whether the option may be given several times, each giving one item."""
        return get_origin(self.base) is Sequence

    @property
    def named(self) -> bool:
        """Whether the option is given as NAME=NUMBER, several times."""
        return get_origin(self.base) is Mapping

    @property
    def item(self) -> Any:
        """Type of one value: bool, int, float, str or Path."""
        kind = get_args(self.base)[0] if self.repeated else float if self.named else self.base
        return type(get_args(kind)[0]) if get_origin(kind) is Literal else kind

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed values; empty if any value of the type is allowed."""
        kind = get_args(self.base)[0] if self.repeated else self.base
        return self.description.choices or (get_args(kind) if get_origin(kind) is Literal else ())

    @property
    def help(self) -> str:
        """The help text with the choices in it."""
        return self.description.help.replace("{choices}", alternatives(self.choices))

    def check(self, value: Any) -> None:
        """Refuse a value of another type, out of range or not among the choices.

        Raises:
            UsageError: with the option's name, what was expected and the value.
        """
        if value is None and self.optional:
            return
        if self.named:
            for number in cast(Mapping[str, Any], value).values():
                self._check_item(number)
        elif self.repeated and not isinstance(value, str):
            for item in value:
                self._check_item(item)
        else:
            self._check_item(value)

    def _check_item(self, value: Any) -> None:
        kinds, words = _TYPES[self.item]
        if not isinstance(value, kinds) or (type(value) is bool and bool not in kinds):
            raise UsageError(f"{self.word} must be {words}", found=repr(value))
        if self.choices and value not in self.choices:
            raise UsageError(f"unknown {self.word}", expected=" or ".join(self.choices), found=value)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{self.word} must be a finite number", found=value)
        about = self.description
        if about.minimum is not None and value < about.minimum:
            raise UsageError(f"{self.word} must be {about.minimum:g} or more", found=value)
        if about.above is not None and not value > about.above:
            raise UsageError(f"{self.word} must be greater than {about.above:g}", found=value)
        if about.maximum is not None and value > about.maximum:
            raise UsageError(f"{self.word} must be {about.maximum:g} or less", found=value)


def alternatives(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> alternatives(["linear", "cosine", "constant"])
    'linear, cosine or constant'
    """
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def check_settings(settings: Any) -> None:
    """Check type, range and choices of each setting; for `__post_init__`.

    Raises:
        UsageError: a value that its field does not allow.
    """
    for option in _own(type(settings)):
        option.check(getattr(settings, option.name))


def options_of(kind: type) -> list[Option]:
    """Command-line options of a settings class in the order of its fields, then those of settings nested in it."""
    every = (option for owner, _ in _owners(kind) for option in _own(owner))
    return [option for option in every if option.description.option is not None]


def option_of(kind: type, name: str) -> Option:
    """The option of one field."""
    return next(option for option in _own(kind) if option.name == name)


def build_settings(kind: type[T], values: Mapping[str, Any]) -> T:
    """Settings from values by key; a key that is missing takes its default, other keys are ignored.

    Raises:
        UsageError: a value that is not allowed, or values that do not fit together.
    """
    given = {option.name: values[option.key] for option in _own(kind) if option.key in values}
    nested: dict[str, Any] = {name: build_settings(inner, values) for inner, name in _nested(kind)}
    return kind(**given, **nested)


def command_words(
    kind: type, values: Mapping[str, Any], *, always: Iterable[str] = (), without: Iterable[str] = ()
) -> list[str]:
    """Words of a command line that give these settings; what equals its default is left out.

    Args:
        kind: the settings class.
        values: by field name, as `dataclasses.asdict` gives them; a missing field counts as its default.
        always: fields to spell out even where they equal their default.
        without: fields to leave out.
    """
    spelled, words = set(always), []
    for owner, path in _owners(kind):
        inner = values if path is None else values.get(path) or {}
        for option in _own(owner):
            if option.name in inner and option.name not in without and option.description.option is not None:
                value = inner[option.name]
                if option.name in spelled or value != option.default:
                    words += _words(option, value)
    return words


def _words(option: Option, value: Any) -> list[str]:
    if option.description.argument:
        return [str(value)]
    if value is None:
        return [option.word, option.description.none] if option.description.none else []
    if isinstance(value, bool):
        return [option.word if value else option.word.replace("--", "--no-", 1)]
    if option.named:
        return [word for name, number in value.items() for word in (option.word, f"{name}={_text(number)}")]
    items = value if option.repeated and not isinstance(value, str) else [value]
    return [word for item in items for word in (option.word, _text(item))]


def _text(value: Any) -> str:
    """A value as typed: the short form of a number where it has the same value."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _owners(kind: type) -> Iterator[tuple[type, str | None]]:
    """The settings class, then those nested in it with their field's name."""
    yield kind, None
    yield from _nested(kind)


def _own(kind: Any) -> tuple[Option, ...]:
    hints = get_type_hints(kind)
    return tuple(
        Option(kind, one.name, hints[one.name], one.default, one.metadata[_DESCRIPTION])
        for one in _fields(kind)
        if _DESCRIPTION in one.metadata
    )


def _nested(kind: Any) -> tuple[tuple[type, str], ...]:
    hints = get_type_hints(kind)
    return tuple((hints[one.name], one.name) for one in _fields(kind) if is_dataclass(hints[one.name]))


def _fields(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)

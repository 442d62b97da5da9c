"""JSON files of a model directory, read by an allow-list.

Each key is taken by the reader that uses it, is known to be harmless, or the model is refused by the file and the key.
Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pipeline.errors import ModelError

Value = TypeVar("Value")

REMOVE = "if the model does not need it, remove the key in a copy of the directory"


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if there is no file.

    Raises:
        ModelError: the file is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("malformed", where=path, expected="a JSON file", found=error) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no file.

    Raises:
        ModelError: the file holds anything else.
    """
    content = read_json(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ModelError("malformed", where=path, expected="a JSON object", found=type(content).__name__)
    return content


class Keys:
    """The keys of a JSON object. `close` refuses the model if some of them have not been taken."""

    def __init__(self, path: Path, values: Mapping[str, Any], harmless: Collection[str] = ()) -> None:
        self.path = path
        self._values, self._left = values, set(values) - set(harmless)

    @classmethod
    def read(cls, path: Path, harmless: Collection[str] = ()) -> Keys:
        """The keys of a file; none if there is no file."""
        return cls(path, read_object(path), harmless)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, kind: type[Value], default: Value) -> Value:
        """The value of a key, which must be of this type; the default if the key is missing or null.

        Raises:
            ModelError: a value of another type.
        """
        self._left.discard(key)
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            self.refuse(key, expected=f"a value of type {kind.__name__}")
        return cast(Value, value)

    def number(self, key: str) -> int | None:
        """A positive whole number; None if the key is missing or null."""
        value = self.take(key, int, 0)
        if value < 0 or (value == 0 and self._values.get(key) is not None):
            self.refuse(key, expected="a positive number")
        return value or None

    def choice(self, key: str, allowed: Collection[Any], default: Any) -> Any:
        """The value of a key, which must be one of `allowed`; the default if the key is missing or null."""
        self._left.discard(key)
        value = self._values.get(key)
        value = default if value is None else value
        if value not in allowed:
            self.refuse(key, expected=" or ".join(str(one) for one in allowed))
        return value

    def nested(self, key: str, harmless: Collection[str] = ()) -> Keys:
        """The keys of an object below a key; the caller closes it."""
        return Keys(Path(f"{self.path}: {key}"), self.take(key, dict, {}), harmless)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of strings; None if the key is missing or null."""
        value = self.take(key, list, [None])
        if value == [None]:
            return None
        if not all(isinstance(text, str) for text in value):
            self.refuse(key, expected="a list of strings")
        return tuple(value)

    def refuse(self, key: str, *, expected: object = None, what: str = "not supported") -> None:
        """Refuse the model because of a key's value.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"{key} is {what}",
            where=self.path,
            expected=expected,
            found=json.dumps(self._values.get(key), ensure_ascii=False)[:200],
            todo=REMOVE,
        )

    def close(self) -> None:
        """Refuse the model if a key has not been taken.

        Raises:
            ModelError: names the file and the first such key.
        """
        for key in sorted(self._left):
            if self._values[key] is not None:
                self.refuse(key, what="an unknown key", expected="keys that are used, or known to be harmless")

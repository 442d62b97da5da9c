"""Content digests of JSON values and files.

Every digest is BLAKE2b of 16 bytes, in hexadecimal. Standard library only: scoring machines need nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16


def new_hash() -> hashlib.blake2b:
    """A new BLAKE2b object with the project's digest size."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def digest_json(value: Any) -> str:
    """Digest of a JSON value, independent of the order of keys.

    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def digest_file(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, new_hash).hexdigest()


def digest_files(paths: Iterable[Path], under: Path | None = None) -> str:
    """Digest of the files' bytes and names (paths relative to `under`, if given), independent of their order."""
    return digest_json({path.relative_to(under or path.parent).as_posix(): digest_file(path) for path in paths})

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.tiny_models import Kind, save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    """A checkpoint of each kind, made once; not to be changed."""

    @cache
    def make(kind: Kind) -> Path:
        return save_tiny(kind, tmp_path_factory.mktemp(kind))

    return make

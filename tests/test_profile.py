"""Property tests run under the one profile of conftest.py: no test has time limits or randomness of its own."""

import os
import re
from pathlib import Path

from hypothesis import settings


def test_every_test_has_the_profile_of_the_project():
    assert settings.default.deadline is None and settings.default.derandomize == bool(os.environ.get("CI"))
    own = re.compile(r"\b(deadline|derandomize)=|load_profile\(")
    files = [path for path in Path(__file__).parent.rglob("*.py") if own.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in files] == ["conftest.py"]

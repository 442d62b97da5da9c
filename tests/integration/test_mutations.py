"""The list of mutations fits the code, and the command that carries them out tells killed from survived."""

import shlex
from collections import Counter

import pytest

from tests.mutate import ROOT, Mutation, carry_out, read_mutations

MUTATIONS = read_mutations()
ROOMS = ("pipeline", "teachers", "students", "jobs")


def test_every_mutation_fits_the_code():
    faults = []
    for mutation in MUTATIONS:
        try:
            changed = mutation.apply((ROOT / mutation.file).read_text(encoding="utf-8"))
            assert changed != (ROOT / mutation.file).read_text(encoding="utf-8")
        except (OSError, ValueError, SyntaxError, AssertionError) as error:
            faults.append(f"{mutation}: {error!r}")
        named = [word for word in shlex.split(mutation.tests) if word.startswith("tests/")]
        faults += [f"{mutation}: no {name}" for name in named if not (ROOT / name.split("::")[0]).exists()]
        faults += [] if named else [f"{mutation}: no tests"]
    assert not faults


def test_the_list_covers_every_room_and_has_no_twins():
    counts = Counter(mutation.file.split("/")[0] for mutation in MUTATIONS)
    assert len(MUTATIONS) >= 100 and min(counts[room] for room in ROOMS) >= 10 and set(counts) == set(ROOMS)
    assert len(set(map(str, MUTATIONS))) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("new", "test", "outcome"),
    [
        ("return one - other", "assert add(2, 1) == 3", "killed"),
        ("return one + other * 1", "assert add(2, 1) == 3", "survived"),
        ("return one - other", "this is no test", "broken"),
    ],
)
def test_outcomes(tmp_path, new, test, outcome):
    (tmp_path / "sums.py").write_text("def add(one, other):\n    return one + other\n")
    (tmp_path / "test_sums.py").write_text(f"from sums import add\n\n\ndef test_add():\n    {test}\n")
    mutation = Mutation("sums.py", "return one + other", new, "test_sums.py --rootdir . -p no:hypothesispytest")
    assert carry_out(tmp_path, mutation, 60) == outcome
    assert (tmp_path / "sums.py").read_text().endswith("return one + other\n")


def test_a_text_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="occurs 2 times"):
        Mutation("x.py", "a", "b", "").apply("a = a")

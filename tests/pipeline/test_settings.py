"""Settings classes: values are checked against their fields, and stored settings keep their identity."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

from pipeline.errors import UsageError
from pipeline.fingerprint import digest_json
from pipeline.settings import build_settings, check_settings, command_words, describe, option_of, options_of, setting
from pipeline.triples.settings import TripleSettings
from students.settings import StudentSettings, TrainSettings


@dataclass(frozen=True)
class Inner:
    width: int | None = setting(None, minimum=1, help="Width.")


@dataclass(frozen=True)
class Sample:
    form: str = field(metadata=describe(help="Format.", argument=True))
    rate: float = setting(0.1, above=0, maximum=1, help="Rate.")
    mode: Literal["a", "b"] = setting("a", help="Mode: {choices}.")
    names: Sequence[str] = setting((), option="--name", help="Names.")
    weights: Mapping[str, float] | None = setting(None, option="--weight", minimum=0, help="Weights.")
    limit: float | None = setting(3.0, none="none", help="Limit.")
    quick: bool = setting(True, help="Quick.")
    hidden: int = setting(1, option=None, help="Hidden.")
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.0}, "--rate must be greater than 0"),
        ({"rate": 1.5}, "--rate must be 1 or less"),
        ({"rate": float("nan")}, "--rate must be a finite number"),
        ({"rate": "1"}, "--rate must be a number\n  found:    '1'"),
        ({"rate": True}, "--rate must be a number"),
        ({"rate": None}, "--rate must be a number"),
        ({"mode": "c"}, "unknown --mode\n  expected: a or b\n  found:    c"),
        ({"weights": {"t": -1.0}}, "--weight must be 0 or more"),
        ({"names": ("x", 1)}, "--name must be a text"),
        ({"quick": 1}, "--quick must be true or false"),
        ({"hidden": 1.0}, "hidden must be a whole number"),
    ],
)
def test_values_are_checked_against_their_fields(values, message):
    with pytest.raises(UsageError) as error:
        Sample("x", **values)
    assert message in str(error.value)


def test_words_and_values_by_key():
    values = {"form": "x", "mode": "b", "name": ("n", "m"), "weight": {"t": 0.5}, "limit": None, "quick": False}
    sample = build_settings(Sample, {**values, "width": 4, "unknown": 1})
    assert sample == Sample(
        "x", mode="b", names=("n", "m"), weights={"t": 0.5}, limit=None, quick=False, inner=Inner(4)
    )
    words = "x --mode b --name n --name m --weight t=0.5 --limit none --no-quick --width 4"
    assert command_words(Sample, asdict(sample)) == words.split()
    assert command_words(Sample, {"mode": "a", "rate": 0.1}, always=["rate"]) == ["--rate", "0.1"]
    assert command_words(Sample, asdict(sample), without=["names", "weights"]) == [
        "x",
        "--mode",
        "b",
        "--limit",
        "none",
        "--no-quick",
        "--width",
        "4",
    ]
    assert [option.key for option in options_of(Sample)][-2:] == ["quick", "width"]
    assert option_of(Sample, "mode").help == "Mode: a or b."


def test_identities_of_stored_settings_stay():
    """Fingerprints that workspaces have: a change here would make all of them stale."""
    student = StudentSettings(query_masks=8, pooling="cls")
    train = TrainSettings("colbert", "base", "margin_mse+0.2*mnrl", "default", learning_rate=7e-6, student=student)
    triples = TripleSettings(ensemble="weighted", weights={"a": 1.0, "b": 0.5}, rank_to=100)
    assert digest_json(train.as_dict()) == "168bef0c21419a2d7dd44e48da65afb1"
    assert digest_json(asdict(triples)) == "9d2d235ecc74a7ece97d5da719bfdd19"
    assert list(train.as_dict())[:5] == ["architecture", "init", "loss", "triples", "split"]

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.errors import UsageError
from teachers.engine.device import choose_device
from teachers.settings import ScoringSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"dtype": "float64"},
            "unknown --dtype\n  expected: float32 or bfloat16 or float16 or int8\n  found:    float64",
        ),
        ({"truncation": "only_first"}, "unknown --truncation"),
        ({"max_length_tokens": 0}, "--max-length must be 1 or more"),
        ({"batch_tokens": 0}, "--batch-tokens must be 1 or more"),
        ({"dtype": "float16", "device": "cpu"}, "a CPU does not compute in float16"),
        ({"dtype": "int8", "backend": "torch"}, "int8 needs OpenVINO"),
        ({"dtype": "float16", "backend": "openvino"}, "OpenVINO computes in"),
        ({"compile": True, "backend": "openvino"}, "found:    --compile"),
        ({"backend": "onnx"}, "unknown --backend"),
    ],
)
def test_options_are_checked_when_built(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        ScoringSettings(**given)


def test_defaults_are_those_of_ms_marco() -> None:
    settings = ScoringSettings()
    assert (settings.max_length_tokens, settings.truncation, settings.dtype) == (
        230,
        "longest_first",
        "float32",
    )


@pytest.mark.parametrize("name", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no such device"):
        choose_device(ScoringSettings(device=name))

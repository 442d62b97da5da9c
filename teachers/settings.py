"""How a cross-encoder is to score: the options that shape its logits, checked when built.

Imports neither torch nor transformers, so that a driver can name what is missing without loading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import UsageError
from pipeline.tokens.pairs import Truncation

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
Backend = Literal["torch", "openvino"]


@dataclass(frozen=True)
class ScoringSettings:
    """Options of one teacher."""

    max_length_tokens: int = 230
    """Longest pair, special tokens included: matchmaker's 30 for the query plus 200 for the passage."""
    truncation: Truncation = "longest_first"
    """Which text is shortened; `only_second` protects the query."""
    dtype: Dtype = "float32"
    """Arithmetic of the products; sums between layers, the head and the logits are float32 in any case."""
    batch_tokens: int | None = None
    """Tokens of one batch, padding included; None takes the device's default. Changes the last bits only."""
    device: str | None = None
    """Torch's name of a device; None takes the first GPU, or the CPU where there is none."""
    backend: Backend | None = None
    """What computes: PyTorch, or OpenVINO on a CPU. None is OpenVINO for int8, PyTorch otherwise."""
    compile: bool = False
    """Let torch.compile fuse what lies between the products."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("truncation", self.truncation, get_args(Truncation)),
            ("dtype", self.dtype, get_args(Dtype)),
            ("backend", self.backend, (None, *get_args(Backend))),
        ):
            if value not in known:
                raise UsageError(f"unknown {name}", expected=" or ".join(filter(None, known)), found=value)
        for name, number in (
            ("max_length_tokens", self.max_length_tokens),
            ("batch_tokens", self.batch_tokens),
        ):
            if number is not None and number < 1:
                raise UsageError(f"{name} must be positive", expected="1 or more", found=number)
        if self.device == "cpu" and self.dtype == "float16":
            raise UsageError("no float16 on a CPU", expected="float32 or bfloat16", found=self.dtype)
        if self.engine == "torch" and self.dtype == "int8":
            raise UsageError("int8 is computed by OpenVINO", expected="--backend openvino", found="--backend torch")
        if self.engine == "openvino" and (self.dtype == "float16" or self.compile):
            raise UsageError(
                "OpenVINO computes in float32, bfloat16 or int8, and compiles by itself",
                found="--compile" if self.compile else self.dtype,
            )

    @property
    def engine(self) -> Backend:
        """The backend that was asked for or follows from the dtype."""
        return self.backend or ("openvino" if self.dtype == "int8" else "torch")

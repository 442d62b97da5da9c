"""How a cross-encoder is to score: the options that shape its logits, checked when built.

Imports neither torch nor transformers, so that a driver can name what is missing without loading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError
from pipeline.settings import check_settings, setting
from pipeline.tokens.truncation import Truncation

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
Backend = Literal["torch", "openvino"]
Switch = Literal["on", "off"]
AnswerForm = Literal["monot5", "mt5", "rankt5"]
MODEL = "Model"


@dataclass(frozen=True)
class ScoringSettings:
    """Settings of one teacher that shape its logits or its speed."""

    # 230 is matchmaker's limit: 30 tokens of the query and 200 of the passage.
    max_length_tokens: int = setting(
        230,
        option="--max-length",
        minimum=1,
        panel=MODEL,
        help="Truncate pairs of query and passage to this many tokens, special tokens included. A student that encodes "
        "query and passage separately keeps the limits that it was trained with.",
    )
    truncation: Truncation = setting(
        "longest_first",
        panel=MODEL,
        help="Text that is shortened to fit: the longer of the two (longest_first) or the passage (only_second).",
    )
    dtype: Dtype = setting(
        "float32",
        panel=MODEL,
        help="Arithmetic of matrix products: float32, bfloat16, float16 (GPU) or int8 (CPU). Logits are float32 in any "
        "case.",
    )
    batch_tokens: int | None = setting(
        None,
        minimum=1,
        panel=MODEL,
        unset="measured in long runs, else set by the device",
        help="Number of tokens in one batch, padding included.",
    )
    device: str | None = setting(
        None, option=None, unset="the first GPU, else the CPU", help="Torch's name of the device."
    )
    backend: Backend | None = setting(
        None,
        panel=MODEL,
        unset="openvino for int8, else torch",
        help="Library that runs the model: torch, or openvino on a CPU.",
    )
    compile: bool = setting(False, panel=MODEL, flag=True, help="Compile the model with torch.compile.")
    query_prompt: str | None = setting(
        None,
        panel=MODEL,
        metavar="TEXT",
        unset="as the model's files say",
        help="Text to put before every query, such as an instruction; an empty text for none.",
    )
    passage_prompt: str | None = setting(
        None,
        panel=MODEL,
        metavar="TEXT",
        unset="as the model's files say",
        help="Text to put before every passage; an empty text for none.",
    )
    instruction: str | None = setting(
        None,
        panel=MODEL,
        metavar="TEXT",
        unset="as the model's files say",
        help="Instruction to a language-model reranker, as the system message of its prompt.",
    )
    form: AnswerForm | None = setting(
        None,
        panel=MODEL,
        help="Prompt and answer of an encoder-decoder, whose files do not say it: {choices}.",
    )
    token_types: Switch | None = setting(
        None,
        panel=MODEL,
        unset="as the checkpoint's files declare",
        help="Whether a cross-encoder's input marks the tokens of the passage by token types: on or off. For "
        "checkpoints whose files do not say how the model was trained.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.device == "cpu" and self.dtype == "float16":
            raise UsageError("a CPU does not compute in float16", expected="float32 or bfloat16", found=self.dtype)
        if self.engine == "torch" and self.dtype == "int8":
            raise UsageError("int8 needs OpenVINO", expected="--backend openvino", found="--backend torch")
        if self.engine == "openvino" and (self.dtype == "float16" or self.compile):
            raise UsageError(
                "OpenVINO computes in float32, bfloat16 or int8, and compiles without --compile",
                found="--compile" if self.compile else self.dtype,
            )

    @property
    def prompts(self) -> tuple[str, str]:
        """Prompts of queries and of passages; none where nothing is set."""
        return self.query_prompt or "", self.passage_prompt or ""

    @property
    def engine(self) -> Backend:
        """The backend, derived from the dtype if it is not set."""
        return self.backend or ("openvino" if self.dtype == "int8" else "torch")

"""A loaded cross-encoder at work in OpenVINO, on a CPU: float32, bfloat16 or int8.

OpenVINO takes the PyTorch module as it is, the last layer for the first token included, with free batch and
length. In int8 the weights of the layers are rounded per output channel, and their inputs while they run, in
groups along the width, so nothing has to be calibrated. Rows are never padded.

Shapes: B rows of a batch, T tokens.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from pipeline.errors import UsageError
from pipeline.tokens.pairs import TokenBatch
from teachers.checkpoints.cross_encoder import CrossEncoder
from teachers.checkpoints.loading import loading
from teachers.engine.first_token import shorten
from teachers.engine.torch_model import Logits, probe_of
from teachers.settings import Dtype

GROUP = 128
"""Inputs that are rounded together; smaller is nearer, and slower."""
_PRECISION: Final[dict[Dtype, str]] = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
_KEPT = [".*embeddings.*", ".*pooler.*", ".*classifier.*", ".*head.*"]
"""What stays as it is in int8: lookups, and the few products that make the logit."""


class OpenVinoModel:
    """A compiled model; implements `teachers.engine.torch_model.RunningModel`."""

    takes_padding = False

    def __init__(self, model: CrossEncoder, dtype: Dtype) -> None:
        """Convert and compile a float32 model.

        Raises:
            UsageError: OpenVINO is not installed, or this processor has no bfloat16.
            ModelError: OpenVINO does not know an operation of this architecture.
        """
        with _unreported():
            self._compile(model, dtype)

    def _compile(self, model: CrossEncoder, dtype: Dtype) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UsageError("OpenVINO is not installed", todo="pip install 'prep-distillation[cpu]'") from error
        core = openvino.Core()
        precision = _PRECISION[dtype]
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            if dtype == "bfloat16":
                raise UsageError("this processor does not compute in bfloat16", expected="--dtype float32 or int8")
            precision = "f32"
        self.first_token = shorten(model.module, probe_of(model)) is not None
        self._with_types = model.has_token_types
        ids = probe_of(model)["input_ids"]
        inputs = [ids, torch.zeros_like(ids)] if self._with_types else [ids]
        types = [([-1, -1], openvino.Type.i64)] * len(inputs)
        with loading("an OpenVINO model", Path(model.config.name_or_path or model.form)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it traces, in ways that torch deprecates
            converted = openvino.convert_model(_Logits(model.module), example_input=tuple(inputs), input=types)
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
        if dtype == "int8":
            converted, options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _rounded(converted), GROUP
        self._compiled = core.compile_model(converted, "CPU", options)

    def start(self, batch: TokenBatch) -> Callable[[], Logits]:
        """Run a batch."""
        begun = time.perf_counter()
        inputs = (batch.input_ids, batch.token_type_ids) if self._with_types else (batch.input_ids,)
        values = np.array(self._compiled(inputs)[0], np.float32)[:, 0]
        done = Logits(values, time.perf_counter() - begun)
        return lambda: done


class _Logits(nn.Module):
    """The model with what it takes and gives in order."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.model = module

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, 1) of input_ids (B, T)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self.model(input_ids=input_ids, **types).logits
        return logits


@contextmanager
def _unreported() -> Iterator[None]:
    """Keep OpenVINO and NNCF from reporting their use to their makers, as they do unless in CI."""
    marks = ("CI", "NNCF_CI")
    before = {name: os.environ.get(name) for name in marks}
    os.environ.update(dict.fromkeys(marks, "true"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _rounded(converted: Any) -> Any:
    """The model with the weights of its layers in int8."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    kept = nncf.IgnoredScope(patterns=_KEPT, validate=False)
    return nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=kept)

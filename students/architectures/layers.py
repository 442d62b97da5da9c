"""Layers that a sentence-transformers checkpoint puts above its encoder, and pooling: built, loaded and saved.

Shapes: N texts, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ModelError
from students.architectures.base import load_strictly
from students.architectures.directory import Module
from teachers.checkpoints.modules import DenseLayer, LayerNorm, PoolingMode, Step

_BASE = "sentence_transformers.models"


class Dense(nn.Module):
    """A linear layer with an activation, and a residual connection if it has one."""

    def __init__(self, layer: DenseLayer) -> None:
        super().__init__()
        self.layer = layer
        self.linear = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        self.activation: nn.Module = getattr(nn, layer.activation)()
        projected = layer.residual and layer.inputs != layer.outputs
        self.residual = nn.Linear(layer.inputs, layer.outputs, bias=False) if projected else None

    def forward(self, states: Tensor) -> Tensor:
        """States (…, outputs) of states (…, inputs)."""
        found: Tensor = self.activation(self.linear(states))
        if not self.layer.residual:
            return found
        return found + (states if self.residual is None else self.residual(states))


class Norm(nn.Module):
    """A layer normalisation under the name of its weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        """States (…, D) of states (…, D)."""
        return self.norm(states)  # type: ignore[no-any-return]


class Unit(nn.Module):
    """Scaling to unit length."""

    def forward(self, states: Tensor) -> Tensor:
        """States (…, D) of states (…, D)."""
        return functional.normalize(states, dim=-1)


def build_layers(steps: Sequence[Step]) -> nn.Sequential:
    """The layers, with their weights.

    Raises:
        ModelError: weights are missing, left over or of another shape.
    """
    return nn.Sequential(*(_layer(step) for step in steps))


def _layer(step: Step) -> nn.Module:
    if isinstance(step, DenseLayer):
        layer: nn.Module = Dense(step)
    elif isinstance(step, LayerNorm):
        layer = Norm(step.width)
    else:
        return Unit()
    load_strictly(layer, read_layer(step.directory), step.directory)
    return layer


def read_layer(directory: Path) -> dict[str, Tensor]:
    """The weights of a module by name; pickled ones are read as weights alone.

    Raises:
        ModelError: no weights.
    """
    safe, pickled = directory / "model.safetensors", directory / "pytorch_model.bin"
    if safe.is_file():
        return load_file(safe)
    if pickled.is_file():
        state: dict[str, Tensor] = torch.load(pickled, map_location="cpu", weights_only=True)
        return state
    raise ModelError("weights of a module are missing", where=directory, expected=f"{safe.name} or {pickled.name}")


def layer_modules(layers: nn.Sequential, first: int, features: Mapping[str, str] | None = None) -> list[Module]:
    """The modules of a directory that hold the layers, numbered from `first` on.

    `features` are the keys for what they read and write, if that is not the text's vector.
    """
    modules = [_module(layer, number) for number, layer in enumerate(layers, first)]
    if features is None:
        return modules
    return [module._replace(config={**(module.config or {}), **features}) for module in modules]


def _module(layer: nn.Module, number: int) -> Module:
    if isinstance(layer, Dense):
        own = layer.layer
        config = {
            "in_features": own.inputs,
            "out_features": own.outputs,
            "bias": own.bias,
            "activation_function": f"torch.nn.modules.{_MODULE_OF.get(own.activation, 'activation')}.{own.activation}",
            **({"use_residual": True} if own.residual else {}),
        }
        return Module(f"{number}_Dense", f"{_BASE}.Dense", config, layer.state_dict())
    if isinstance(layer, Norm):
        width = {"dimension": layer.norm.normalized_shape[0]}
        return Module(f"{number}_LayerNorm", f"{_BASE}.LayerNorm", width, layer.state_dict())
    return Module(f"{number}_Normalize", f"{_BASE}.Normalize")


_MODULE_OF = {"Identity": "linear"}


def pool(states: Tensor, mask: Tensor, modes: Sequence[PoolingMode]) -> Tensor:
    """Vectors (N, modes x D) of texts, from the states (N, T, D) of tokens that `mask` (N, T) marks.

    Padding is on the right. The formulas are those of sentence-transformers' Pooling, also for texts without a token.
    """
    vectors = [_POOLS[mode](states, mask) for mode in modes]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)


def _at(states: Tensor, position: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), position]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    width, marked = mask.shape[1], mask.to(torch.int32)
    position = width - 1 - marked.flip(1).argmax(1)
    none = marked.sum(1) == 0
    return _at(states, position.masked_fill(none, 0)).masked_fill(none.unsqueeze(1), 0.0)


def _sum(states: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    weights = weights.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1), weights.sum(1).clamp(min=1e-9)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    total, count = _sum(states, mask)
    return total / count


def _mean_of_root(states: Tensor, mask: Tensor) -> Tensor:
    total, count = _sum(states, mask)
    return total / count.sqrt()


def _weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    return _mean(states, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device))


_POOLS = {
    "cls": lambda states, mask: _at(states, mask.to(torch.int32).argmax(1)),
    "max": lambda states, mask: states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1),
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}

"""The encoders of the BERT family, computing of their last layer only what a cross-encoder's head reads.

BERT, RoBERTa, ELECTRA, DistilBERT and ALBERT name their weights differently and compute the same: attention,
then a feed-forward network, each added to its input and normalised. Here that one computation, over the weights
of a loaded model. The head reads the first token alone, so the last layer needs queries, attention output and
feed-forward for that token only, and keys and values for all: exact, and nearly a layer saved. In a low
precision the products are computed in it; the sums between layers and the normalisation stay float32, which
costs little and keeps the order of the scores.

Shapes: B batch, T tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions


class Layer(nn.Module):
    """Attention and feed-forward, each normalised after its sum."""

    def __init__(
        self,
        attention: tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear],
        attention_norm: nn.LayerNorm,
        feed_forward: tuple[nn.Linear, nn.Module, nn.Linear],
        output_norm: nn.LayerNorm,
        heads: int,
    ) -> None:
        """`attention` is query, key, value, output; `feed_forward` its two linear layers around an activation."""
        super().__init__()
        query, key, value, self.attended = attention
        self.projected = _joined((query, key, value))
        self.inner, activation, self.outer = feed_forward
        self.activation = _fused(activation)
        self.attention_norm, self.output_norm = attention_norm, output_norm
        self.heads = heads

    def lower(self, dtype: torch.dtype) -> None:
        """Compute the products in `dtype`."""
        for linear in (self.projected, self.attended, self.inner, self.outer):
            linear.to(dtype)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """All states (B, T, D) from states (B, T, D)."""
        query, key, value = self.projected(hidden.to(self.projected.weight.dtype)).chunk(3, dim=-1)
        return self._complete(hidden, query, key, value, mask)

    def first(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The first token's state (B, 1, D) from states (B, T, D)."""
        weight, bias = self.projected.weight, self.projected.bias
        width = len(weight) // 3
        lowered = hidden.to(weight.dtype)
        query = functional.linear(lowered[:, :1], weight[:width], bias[:width])
        key, value = functional.linear(lowered, weight[width:], bias[width:]).chunk(2, dim=-1)
        return self._complete(hidden[:, :1], query, key, value, mask)

    def _complete(
        self,
        hidden: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """From the projections (B, T, D) on; as many states as `hidden` and `query` have."""
        context = functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), attn_mask=mask
        )  # (B, H, T, D / H)
        attended = self.attention_norm(hidden + self.attended(context.transpose(1, 2).flatten(2)))
        inner = self.activation(self.inner(attended.to(self.inner.weight.dtype)))
        normed: torch.Tensor = self.output_norm(attended + self.outer(inner))
        return normed

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """By heads: (B, H, T, D / H) from (B, T, D)."""
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)


class FirstTokenEncoder(nn.Module):
    """Takes the place of a model's stack of layers; its output has one state, the first token's."""

    def __init__(self, layers: Iterable[Layer], mapping: nn.Module | None = None) -> None:
        """`mapping`, if any, comes before the layers; layers that share their weights are given repeatedly."""
        super().__init__()
        self.mapping = mapping
        self.layers = nn.ModuleList(layers)

    def lower(self, dtype: torch.dtype) -> None:
        """Compute the products of all layers in `dtype`."""
        for layer in self.layers:
            cast(Layer, layer).lower(dtype)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """The last state (B, 1, D) from embeddings (B, T, D); the mask is None, or (B, 1, T, T) of padding."""
        hidden = hidden_states if self.mapping is None else self.mapping(hidden_states)
        # Padding is the same for every query, so that one row of it will do.
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        *before, last = self.layers
        for layer in before:
            hidden = layer(hidden, mask)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=cast(Layer, last).first(hidden, mask))


def shorten(model: nn.Module, probe: dict[str, torch.Tensor]) -> FirstTokenEncoder | None:
    """Put a `FirstTokenEncoder` in place of the model's stack of layers, if the logits stay what they are.

    None for a model of another family, or one whose head reads more than the first token; it is left as it was.

    Args:
        model: a float32 sequence classifier in eval mode.
        probe: inputs to compare the logits on.
    """
    found = [(name, module) for name, module in model.named_modules() if type(module).__name__ in _READERS]
    if len(found) != 1:
        return None
    (name, stack), holder = found[0], model.get_submodule(found[0][0].rpartition(".")[0])
    attribute = name.rpartition(".")[2]
    try:
        encoder = _READERS[type(stack).__name__](stack)
    except AttributeError:  # another version's names
        return None
    with torch.inference_mode():
        expected = model(**probe).logits
        setattr(holder, attribute, encoder)
        if torch.allclose(model(**probe).logits, expected, rtol=1e-4, atol=1e-4):
            return encoder.eval()
    setattr(holder, attribute, stack)
    return None


def _bert(stack: Any) -> FirstTokenEncoder:
    return FirstTokenEncoder(
        Layer(
            (
                layer.attention.self.query,
                layer.attention.self.key,
                layer.attention.self.value,
                layer.attention.output.dense,
            ),
            layer.attention.output.LayerNorm,
            (layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense),
            layer.output.LayerNorm,
            layer.attention.self.num_attention_heads,
        )
        for layer in stack.layer
    )


def _distilbert(stack: Any) -> FirstTokenEncoder:
    return FirstTokenEncoder(
        Layer(
            (layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin, layer.attention.out_lin),
            layer.sa_layer_norm,
            (layer.ffn.lin1, layer.ffn.activation, layer.ffn.lin2),
            layer.output_layer_norm,
            layer.attention.n_heads,
        )
        for layer in stack.layer
    )


def _albert(stack: Any) -> FirstTokenEncoder:
    groups = [[_albert_layer(layer) for layer in group.albert_layers] for group in stack.albert_layer_groups]
    count = stack.config.num_hidden_layers
    order = (groups[number * len(groups) // count] for number in range(count))
    return FirstTokenEncoder((layer for group in order for layer in group), stack.embedding_hidden_mapping_in)


def _albert_layer(layer: Any) -> Layer:
    attention = layer.attention
    return Layer(
        (attention.query, attention.key, attention.value, attention.dense),
        attention.LayerNorm,
        (layer.ffn, layer.activation, layer.ffn_output),
        layer.full_layer_layer_norm,
        attention.num_attention_heads,
    )


_READERS: Final[dict[str, Callable[[Any], FirstTokenEncoder]]] = {
    "BertEncoder": _bert,
    "RobertaEncoder": _bert,
    "XLMRobertaEncoder": _bert,
    "CamembertEncoder": _bert,
    "ElectraEncoder": _bert,
    "Transformer": _distilbert,
    "AlbertTransformer": _albert,
}
"""By the class of the stack of layers."""


def _joined(linears: tuple[nn.Linear, ...]) -> nn.Linear:
    """One linear layer that gives the outputs of several, end to end: a larger product is a faster one."""
    joined = nn.Linear(linears[0].in_features, sum(linear.out_features for linear in linears), device="meta")
    joined.weight = nn.Parameter(torch.cat([linear.weight.detach() for linear in linears]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([linear.bias.detach() for linear in linears]), requires_grad=False)
    return joined


def _fused(activation: nn.Module) -> nn.Module:
    """The same function in one kernel, where the model spells it out in several (ALBERT's GELU)."""
    return nn.GELU(approximate="tanh") if type(activation).__name__ == "NewGELUActivation" else activation

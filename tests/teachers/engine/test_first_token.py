"""The cut encoder against the model it was made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    FunnelConfig,
    GPT2Config,
    PreTrainedConfig,
    T5Config,
    XLMConfig,
    XLNetConfig,
)

from pipeline.errors import ModelError
from pipeline.tokens.pairs import TokenBatch
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.cross_encoder import CrossEncoder, load_cross_encoder
from teachers.engine.cost import flop_of, measure_peak, weights_of
from teachers.engine.first_token import FirstTokenEncoder, shorten
from teachers.engine.torch_model import TorchModel, probe_of
from tests.tiny_models import Kind, save_tiny

Tiny = Callable[[Kind], Path]
FAMILIES: list[Kind] = ["bert", "albert", "distilbert", "roberta", "electra", "bert_cat"]


def load(directory: Path) -> CrossEncoder:
    return load_cross_encoder(resolve(str(directory)))


def inputs(rows: int, tokens: int, padded: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 100, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, tokens - padded :] = 0
    return {"input_ids": ids, "attention_mask": mask} if padded else {"input_ids": ids}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("padded", [0, 7])
def test_the_logits_stay_what_they_are(tiny: Tiny, kind: Kind, padded: int) -> None:
    model, batch = load(tiny(kind)), inputs(5, 30, padded)
    with torch.inference_mode():
        expected = model.module(**batch).logits
        encoder = shorten(model.module, probe_of(model))
        assert encoder is not None
        seen: list[int] = []
        encoder.layers[-1].inner.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
        torch.testing.assert_close(model.module(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    # ALBERT's layers share their weights, so the hook sees each of them.
    assert seen == ([30, 1] if kind == "albert" else [1])


def test_groups_of_layers_keep_their_order(tmp_path: Path) -> None:
    model = load(save_tiny("albert", tmp_path, num_hidden_layers=6, num_hidden_groups=3, inner_group_num=2))
    assert isinstance(shorten(model.module, probe_of(model)), FirstTokenEncoder)


def test_a_model_of_another_family_is_left_as_it_is(tiny: Tiny) -> None:
    model = load(tiny("modernbert"))
    assert shorten(model.module, probe_of(model)) is None


def test_a_head_that_reads_all_tokens_is_noticed(tiny: Tiny) -> None:
    class MeanOfAll(nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return states.mean(1)

    model = load(tiny("bert"))
    model.module.bert.pooler = MeanOfAll()
    before = model.module.bert.encoder
    assert shorten(model.module, probe_of(model)) is None
    assert model.module.bert.encoder is before


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_low_precision_leaves_the_sums_and_the_head_alone(tiny: Tiny, kind: Kind) -> None:
    model = load(tiny(kind))
    lowered = TorchModel(model, torch.bfloat16, torch.device("cpu"))
    assert lowered.first_token == (kind == "bert")
    kept = {m.weight.dtype for m in model.module.modules() if isinstance(m, nn.LayerNorm | nn.Embedding)}
    assert kept == {torch.float32}


@pytest.mark.parametrize("first_token", [True, False])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "albert"])
def test_the_operations_are_those_torch_counts(tiny: Tiny, kind: Kind, first_token: bool) -> None:
    model = load(tiny(kind))
    if first_token:
        shorten(model.module, probe_of(model))
    count = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), count:
        model.module(**inputs(3, 40, 0))
    config = model.config.to_dict()
    # Pooler, head and ALBERT's mapping of embeddings are a few thousandths of a real model's work.
    extra = 2 * 3 * (32 * 32 + 32) if kind != "albert" else 2 * 3 * (40 * 16 * 32 + 32 * 32 + 32)
    assert flop_of(config, np.array([40, 40, 40]), first_token=first_token) + extra == count.get_total_flops()


SMALL = {"vocab_size": 50, "num_labels": 1}


@pytest.mark.parametrize(
    "config",
    [
        XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, **SMALL),
        BartConfig(d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64, **SMALL),
        T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0, **SMALL),
        GPT2Config(n_embd=32, n_layer=2, n_head=2, pad_token_id=0, **SMALL),
        FunnelConfig(d_model=32, d_inner=64, n_head=2, d_head=16, block_sizes=[1, 1], **SMALL),
        XLMConfig(emb_dim=32, n_layers=2, n_heads=2, **SMALL),
    ],
    ids=lambda config: config.model_type,
)
def test_the_operations_of_other_families_are_about_those_torch_counts(config: PreTrainedConfig) -> None:
    module = AutoModelForSequenceClassification.from_config(config).eval()
    batch = torch.full((3, 12), 7)
    end = getattr(config, "eos_token_id", None)
    batch[:, -1] = end if end in range(50) else 3  # BART's head reads the last such token
    count = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), count:
        module(input_ids=batch, attention_mask=torch.ones_like(batch))
    told, lengths = module.config.to_dict(), np.array([12, 12, 12])
    found = flop_of(told, lengths, first_token=False, weights=weights_of(module))
    assert 0.5 < found / count.get_total_flops() < 1.5
    with pytest.raises(ModelError, match="without the sizes"):
        flop_of(told, lengths, first_token=False)


def test_a_peak_is_measured() -> None:
    assert 1e9 < measure_peak(torch.device("cpu"), torch.float32) < 1e13


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_gives_the_same(tiny: Tiny) -> None:
    batch = TokenBatch(inputs(4, 20, 0)["input_ids"].numpy(), None, None)
    plain, compiled = (
        TorchModel(load(tiny("bert")), torch.float32, torch.device("cpu"), compiled=each) for each in (False, True)
    )
    np.testing.assert_allclose(compiled.start(batch)().values, plain.start(batch)().values, atol=1e-5)

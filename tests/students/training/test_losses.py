from itertools import pairwise
from math import exp, log

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.errors import UsageError
from students.losses import LOSSES, Loss
from students.settings import TrainSettings, parse_loss
from students.training.batches import Batch
from students.training.losses import (
    FUNCTIONS,
    LossInputs,
    bce,
    false_negatives,
    in_batch_margin_mse,
    kl,
    margin_mse,
    mnrl,
    pointwise_mse,
    ranknet,
    weighted_ranknet,
)
from students.training.objective import Objective, Targets
from students.training.step_inputs import row_weights

SCORES = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0]])
TEACHER = torch.tensor([[5.0, 1.0, 4.0], [1.0, 2.0, -2.0]])
WEIGHTS = torch.tensor([1.5, 0.5])
MARGINS = [1.5, 3.0, -3.0, -1.0]
THEIRS = [4.0, 1.0, -1.0, 3.0]


def mean(values, weights=(1, 1)):
    """Of two rows."""
    half = len(values) // 2
    return sum(w * sum(row) / half for w, row in zip(weights, (values[:half], values[half:]), strict=True)) / 2


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_losses_by_hand(weights):
    w = (1, 1) if weights is None else weights.tolist()
    both = list(zip(MARGINS, THEIRS, strict=True))
    found = margin_mse(SCORES, TEACHER, weights)
    assert found.item() == pytest.approx(mean([(s - t) ** 2 for s, t in both], w))
    points = [(s - t) ** 2 for s, t in zip(SCORES.flatten().tolist(), TEACHER.flatten().tolist(), strict=True)]
    assert pointwise_mse(SCORES, TEACHER, weights).item() == pytest.approx(mean(points, w))
    pairs = [max(t, 0) * log(1 + exp(-s)) for s, t in both]
    assert weighted_ranknet(SCORES, TEACHER, weights).item() == pytest.approx(mean(pairs, w))
    assert ranknet(SCORES, weights).item() == pytest.approx(mean([log(1 + exp(-s)) for s in MARGINS], w))
    signed = [2.0, -0.5, 1.0, 0.0, -3.0, -1.0]
    assert bce(SCORES, weights).item() == pytest.approx(mean([log(1 + exp(-s)) for s in signed], w))
    rows = []
    for s, t in zip(SCORES.tolist(), TEACHER.tolist(), strict=True):
        p, q = ([exp(x / 2) / sum(exp(y / 2) for y in row) for x in row] for row in (t, s))
        rows.append(4 * sum(a * log(a / b) for a, b in zip(p, q, strict=True)))
    assert kl(SCORES, TEACHER, 2.0, weights).item() == pytest.approx(mean(rows, w), rel=1e-5)


def test_margins_do_not_see_a_shift_and_one_negative_gives_the_papers_halves():
    shifted = margin_mse(SCORES + 7, TEACHER - torch.tensor([[3.0], [9.0]]))
    assert shifted.item() == pytest.approx(margin_mse(SCORES, TEACHER).item())
    s, t = SCORES[:, :2], TEACHER[:, :2]
    halves = (functional.mse_loss(s[:, 0], t[:, 0]) + functional.mse_loss(s[:, 1], t[:, 1])) / 2
    assert pointwise_mse(s, t).item() == pytest.approx(halves.item())


def test_mnrl_by_hand():
    scores = torch.tensor([[1.0, 0.0, 2.0, -1.0], [0.5, 1.0, 3.0, 0.0]])
    excluded = torch.tensor([[False, False, True, False], [False] * 4])
    own = torch.tensor([0, 2])
    first = -log(exp(2) / (exp(2) + exp(0) + exp(-2)))
    second = -log(exp(6) / (exp(1) + exp(2) + exp(6) + exp(0)))
    assert mnrl(scores, own, excluded, 2.0).item() == pytest.approx((first + second) / 2)
    assert mnrl(scores, own, excluded, 2.0, WEIGHTS).item() == pytest.approx((1.5 * first + 0.5 * second) / 2)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_in_batch_margins_by_hand(weights):
    scores = torch.tensor([[1.0, 0.0, 2.0, -1.0], [0.5, 1.0, 3.0, 0.0]])
    teacher = torch.tensor([[4.0, 1.0, 1.0, 0.0], [0.0, 0.0, 2.0, 5.0]])
    first = ((1 - 3) ** 2 + (-1 - 3) ** 2 + (2 - 4) ** 2) / 3
    second = ((2.5 - 2) ** 2 + (2 - 2) ** 2 + (3 - -3) ** 2) / 3
    w = (1, 1) if weights is None else weights.tolist()
    found = in_batch_margin_mse(scores, teacher, torch.tensor([0, 2]), weights)
    assert found.item() == pytest.approx((w[0] * first + w[1] * second) / 2)


def test_no_passage_counts_against_its_own_query_or_twice():
    queries = torch.tensor([1, 2, 1])
    passages = torch.tensor([[10, 11], [20, 10], [12, 11]])
    # columns:            10     11     20     10     12     11
    expected = [
        [False, False, False, True, True, True],  # 12 answers query 1 too
        [False, False, False, True, False, True],  # 10 and 11 stand there already
        [True, False, False, True, False, True],
    ]
    assert false_negatives(queries, passages).tolist() == expected


def test_losses_equal_those_of_sentence_transformers():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import losses as dense
    from sentence_transformers.util import dot_score, pairwise_dot_score

    drawn = torch.Generator().manual_seed(0)
    query, *texts = (torch.randn(4, 8, generator=drawn) for _ in range(4))
    teacher = torch.randn(4, 3, generator=drawn)
    own = torch.stack([(query * text).sum(1) for text in texts], 1)
    margin = dense.MarginMSELoss(None, similarity_fct=pairwise_dot_score)
    assert torch.allclose(margin_mse(own, teacher), margin.compute_loss_from_embeddings([query, *texts], teacher))
    divergence = dense.DistillKLDivLoss(None, similarity_fct=pairwise_dot_score, temperature=2.0)
    assert torch.allclose(kl(own, teacher, 2.0), divergence.compute_loss_from_embeddings([query, *texts], teacher))
    ranking = dense.MultipleNegativesRankingLoss(None, scale=3.0, similarity_fct=dot_score)
    every = query @ torch.stack(texts, 1).flatten(0, 1).T
    none = torch.zeros(4, 12, dtype=torch.bool)
    found = mnrl(every, torch.arange(4) * 3, none, 3.0)
    assert torch.allclose(found, ranking.compute_loss_from_embeddings([query, *texts], None))


def test_a_sum_of_losses_takes_its_candidates_from_the_whole_batch():
    settings = TrainSettings(
        "sparse", "x", "margin_mse+0.5*mnrl", triples="t", mnrl_scale=2.0, flops_query=0.1, flops_passage=0.2
    )
    objective = Objective(settings)
    every = torch.tensor([[1.0, 0.0, 2.0, -1.0], [0.5, 1.0, 3.0, 0.0]])
    passages = torch.tensor([[1, 2], [3, 4]])
    teacher = torch.tensor([[3.0, 1.0], [2.0, 2.0]])
    targets = Targets(torch.tensor([0, 1]), passages, teacher, torch.ones(2))
    margin = ((1 - 2) ** 2 + (3 - 0) ** 2) / 2
    ranking = mnrl(every, torch.tensor([0, 2]), torch.zeros(2, 4, dtype=torch.bool), 2.0).item()
    assert objective.in_batch
    assert objective(every, targets).item() == pytest.approx(margin + 0.5 * ranking)
    with_flops = objective(every, targets, torch.tensor([10.0, 100.0]))
    assert with_flops.item() == pytest.approx(margin + 0.5 * ranking + 1 + 20)
    idle = targets._replace(weights=torch.zeros(2))
    assert objective(every, idle, torch.tensor([10.0, 100.0])).item() == objective(every, idle).item()


def test_in_batch_losses_learn_from_the_in_batch_teacher():
    settings = TrainSettings(
        "bert_dot", "x", "0.5*in_batch_margin_mse+in_batch_kl", in_batch_teacher="t", temperature=2
    )
    every, theirs = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0))
    targets = Targets(torch.tensor([0, 1]), torch.tensor([[1, 2], [3, 4]]), None, torch.ones(2), theirs)
    margins = in_batch_margin_mse(every, theirs, torch.tensor([0, 2]))
    expected = 0.5 * margins + kl(every, theirs, 2.0)
    assert torch.allclose(Objective(settings)(every, targets), expected)


def test_each_loss_of_the_registry_has_a_function_that_reads_what_it_needs():
    assert LOSSES.keys() == FUNCTIONS.keys()
    query, passages = torch.tensor([0, 1]), torch.tensor([[1, 2], [3, 4]])
    own, every = torch.randn(2, 2), torch.randn(2, 4)
    for name, loss in LOSSES.items():
        teacher, in_batch_teacher = (
            own + 1 if loss.teacher_scores else None,
            every + 1 if loss.in_batch_teacher else None,
        )
        scores = every if loss.in_batch else own
        inputs = LossInputs(own, scores, teacher, in_batch_teacher, query, passages, None, 1.0, 1.0)
        assert FUNCTIONS[name](inputs).shape == () and torch.isfinite(FUNCTIONS[name](inputs)), name
        for field in ("teacher", "in_batch_teacher"):
            if getattr(inputs, field) is not None:
                with pytest.raises(AssertionError):
                    FUNCTIONS[name](inputs._replace(**{field: None}))
    assert {name for name, loss in LOSSES.items() if loss == Loss()} >= {"ranknet", "bce"}


def test_loss_names_are_read():
    assert [tuple(term) for term in parse_loss("margin_mse + 0.2*mnrl")] == [(1.0, "margin_mse"), (0.2, "mnrl")]
    for wrong in ("hinge", "mnrl+", "0*mnrl", "x*mnrl", "nan*mnrl", "mnrl+mnrl", ""):
        with pytest.raises(UsageError):
            parse_loss(wrong)


def test_teachers_that_disagree_count_less():
    std = np.array([0.0, 1.0, 2.0, 10.0], np.float32)
    batch = Batch(np.zeros(4), np.zeros((4, 2)), None, std)
    weights = row_weights(batch, 2.0)
    raw = [1 / (1 + (float(std) / 2) ** 2) for std in batch.margin_std]
    assert weights.tolist() == pytest.approx([one / (sum(raw) / len(raw)) for one in raw])
    assert weights.mean() == pytest.approx(1) and weights[2] == pytest.approx(weights[0] / 2)
    assert all(a > b for a, b in pairwise(weights)) and row_weights(batch, None).tolist() == [1] * 4

from math import exp, log

import pytest
import torch

from students.losses import bce, margin_mse, ranknet

SCORES = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0]])
TEACHER = torch.tensor([[5.0, 1.0, 4.0], [1.0, 2.0, -2.0]])
MARGINS = [1.5, 3.0, -3.0, -1.0]


def test_margin_mse_by_hand():
    teacher = [4.0, 1.0, -1.0, 3.0]
    expected = sum((s - t) ** 2 for s, t in zip(MARGINS, teacher, strict=True)) / 4
    assert margin_mse(SCORES, TEACHER).item() == pytest.approx(expected)
    shifted = margin_mse(SCORES + 7, TEACHER - torch.tensor([[3.0], [9.0]]))
    assert shifted.item() == pytest.approx(expected)


def test_ranknet_by_hand():
    assert ranknet(SCORES).item() == pytest.approx(sum(log(1 + exp(-m)) for m in MARGINS) / 4)


def test_bce_by_hand():
    signed = [2.0, -0.5, 1.0, 0.0, -3.0, -1.0]
    assert bce(SCORES).item() == pytest.approx(sum(log(1 + exp(-s)) for s in signed) / 6)

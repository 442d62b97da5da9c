from collections import Counter

import numpy as np
import pytest
import torch

from students.architectures.bert_dot import BertDot
from students.settings import StudentSettings, TrainSettings
from students.token_rows import TextRows, Tokens
from students.training.batches import Batch
from students.training.step_inputs import StepInputs, Workers, micro_batches_per_step, split_inputs
from tests.tiny_models import sample_texts, save_tiny

ROWS = 23


class Numbered:
    """Row i asks for query i, in another order each epoch."""

    rows = ROWS

    def batch(self, epoch, start, size):
        order = np.random.default_rng(epoch).permutation(ROWS)[start : start + size].astype(np.int32)
        std = np.linspace(0, 3, len(order), dtype=np.float32)
        return Batch(order, np.stack([order, (order + 1) % ROWS], 1), np.ones((len(order), 2), np.float32), std)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return BertDot.from_checkpoint(str(save_tiny("bert", tmp_path_factory.mktemp("tiny"))), StudentSettings())


def micro_batches(student, rank, workers, micro, start=0, steps=9):
    texts = TextRows.of(student.tokenizer, sample_texts(ROWS, longest=9)).texts
    settings = TrainSettings("bert_dot", "x", "margin_mse", "t", batch_size=8, micro_batch_size=micro, agreement=1.0)
    group = Workers(rank, workers)
    inputs = StepInputs(student, Numbered(), Tokens(texts, texts), settings, group, steps=steps, start=start)
    return list(inputs), micro_batches_per_step(settings, group)


@pytest.mark.parametrize(("workers", "micro"), [(1, None), (2, None), (3, None), (1, 3), (3, 2), (9, None)])
def test_each_row_comes_once_an_epoch_and_parts_average_to_the_whole(student, workers, micro):
    whole, _ = micro_batches(student, 0, 1, None)
    seen, sums = Counter(), np.zeros(9)
    for rank in range(workers):
        inputs, parts = micro_batches(student, rank, workers, micro)
        assert len(inputs) == 9 * parts
        for place, features in enumerate(inputs):
            _, targets = split_inputs(features)
            used = targets.weights > 0
            step = place // parts
            seen.update((step // 3, int(query)) for query in targets.query_ids[used])
            value = targets.query_ids.float()  # stands for a loss of each row
            sums[step] += float((value * targets.weights).mean()) / (workers * parts)
    assert set(seen.values()) == {1} and len(seen) == 3 * ROWS
    expected = [float((t.query_ids.float() * t.weights).mean()) for t in (split_inputs(f)[1] for f in whole)]
    assert np.allclose(sums, expected, rtol=1e-5)


def test_a_later_start_gives_the_same_inputs(student):
    whole, _ = micro_batches(student, 1, 2, 2)
    rest, parts = micro_batches(student, 1, 2, 2, start=4)
    assert len(rest) == 5 * parts
    for first, second in zip(whole[4 * parts :], rest, strict=True):
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())

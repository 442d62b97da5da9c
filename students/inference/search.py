"""Exact search: scores every query against every passage, block by block, and keeps the best.

The same loop serves dense vectors and MaxSim, by torch's matrix product on any device, and sparse texts, by SciPy's. (A
flat index of faiss would hold all vectors in memory a second time, and serve dense students alone.) A search reads all
stored passages once, so many queries at once cost little more than one. Texts are sorted by their number of vectors,
because a block is padded to its longest text.

Shapes: Q queries, B of a block, N passages, n of a block, T and S vectors of a query and of a passage, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from students.architectures.separate import SeparateStudent, States
from students.inference.encoded import Encoded
from students.inference.ranking import Ranked, best, keys_of, unkey

QUERIES_PER_BLOCK = 512
LEAST_PASSAGES = 256
"""Least passages of a block, if they have many vectors."""
MATCHES_PER_BLOCK = 1 << 26
"""Products of query and passage vectors in memory at once."""
SCORES_PER_BLOCK = 1 << 24
VALUES_PER_BLOCK = 1 << 25
"""Float32 values of passages in memory at once."""


@torch.inference_mode()
def search_encoded(
    student: SeparateStudent,
    queries: Encoded,
    passages: Iterable[Encoded],
    k: int,
    device: torch.device,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Ranked:
    """The best `k` passages of each query: scores (Q, k) and ids (Q, k), which number the passages in order from 0.

    Memory holds the queries' states, Q x k keys and one block.
    """
    keys, first = torch.empty(queries.count, 0, dtype=torch.int64), 0
    by_length = _by_length(queries)
    queries = queries if by_length is None else queries.take(by_length)
    for chunk in passages:
        if queries.count and chunk.count:
            keys = _merge(student, queries, chunk, keys, first, k, device)
        first += chunk.count
        on_progress(chunk.count)
    return unkey(keys if by_length is None else keys[by_length.argsort()])


def _merge(
    student: SeparateStudent,
    queries: Encoded,
    passages: Encoded,
    keys: Tensor,
    first: int,
    k: int,
    device: torch.device,
) -> Tensor:
    """The best keys (Q, k) of `keys` and of a chunk of passages, whose ids start at `first`."""
    matches = _vectors(queries) * _vectors(passages)
    few = min(QUERIES_PER_BLOCK, max(1, MATCHES_PER_BLOCK // (LEAST_PASSAGES * matches)))
    many = min(MATCHES_PER_BLOCK // matches, SCORES_PER_BLOCK) // few
    if passages.entries is None:
        many = min(many, VALUES_PER_BLOCK // (_vectors(passages) * passages.width))
    many = max(1, many)
    by_length = _by_length(passages)
    for start in range(0, passages.count, many):
        if by_length is None:
            block = passages.between(start, start + many)
            ids = torch.arange(first + start, first + start + block.count)
        else:
            block = passages.take(by_length[start : start + many])
            ids = first + by_length[start : start + many]
        states = block.states(device) if block.entries is None else None
        parts = []
        for row in range(0, queries.count, few):
            query_states = queries.between(row, row + few).states(device)
            scores = (
                _sparse_scores(query_states, block) if states is None else student.interact_all(query_states, states)
            )
            held = keys[row : row + few]
            parts.append(best(torch.cat([held, keys_of(scores.float().cpu(), ids)], dim=1), k))
        keys = torch.cat(parts)
    return keys


def _by_length(texts: Encoded) -> Tensor | None:
    """Rows (N,) sorted by their number of vectors; None if all have the same number, to save the copy."""
    if texts.entries is not None or bool((texts.lengths == texts.lengths[:1]).all()):
        return None
    return texts.lengths.argsort(stable=True)


def _vectors(texts: Encoded) -> int:
    """Largest number of vectors of a text."""
    return 1 if texts.entries is not None else max(1, int(texts.lengths.max()))


def _sparse_scores(queries: States, passages: Encoded) -> Tensor:
    """Dot products (B, n) of dense query vectors with sparse passages."""
    from scipy.sparse import csr_array  # here, so that training needs no SciPy

    assert passages.entries is not None
    parts = (passages.values[:, 0].float().numpy(), passages.entries.numpy(), passages.offsets.numpy())
    table = csr_array(parts, shape=(passages.count, passages.width))
    return torch.from_numpy(table @ queries.values[:, 0].cpu().numpy().T).T

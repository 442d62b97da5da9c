"""Tokenising texts one by one, without special tokens: what a pair is later put together from.

In: a fast tokenizer and texts. Out: ids and lengths as flat arrays, whatever truncation or padding the
tokenizer's file asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from pipeline.tokens.pairs import TokenChunk
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.loading import load_tokenizer

CHUNK_TEXTS = 4096


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prompt: str = "") -> TokenChunk:
    """The ids of some texts, each after the prompt; a few thousand at a time, because memory holds them as lists."""
    texts = [prompt + text for text in texts] if prompt else texts
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.fromiter((token for text in ids for token in text), np.int32, int(lengths.sum()))
    return TokenChunk(flat, lengths, np.fromiter((not text for text in texts), np.bool_, len(texts)))


@cache
def tokenizer_of(checkpoint: str | Checkpoint, tokenizer_hash: str) -> PreTrainedTokenizerBase:  # noqa: ARG001
    """A checkpoint's tokenizer, loaded once in a process; the hash tells a changed one from what it was."""
    return load_tokenizer(resolve(checkpoint))


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest id; ids may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1

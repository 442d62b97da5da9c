"""Word vectors from a text file in GloVe's format, and the tokenizer for them.

Each line holds a word and its values, separated by blanks; a first line of two numbers (word2vec's count and width) is
skipped. The tokenizer lower-cases and splits at blanks and punctuation; unknown words have a vector of zeros.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipeline.errors import InputError

_SPECIALS = ("[PAD]", "[UNK]")


def read_word_vectors(path: Path) -> tuple[nn.Embedding, PreTrainedTokenizerBase]:
    """A trainable table of vectors, with padding and the unknown word in the first two rows, and its tokenizer.

    Raises:
        InputError: the file has no vectors, or a line has another number of values than the first.
    """
    words: dict[str, int] = dict(zip(_SPECIALS, range(len(_SPECIALS)), strict=True))
    vectors: list[np.ndarray] = []
    with path.open(encoding="utf-8", errors="strict") as lines:
        for number, line in enumerate(lines, 1):
            word, *values = line.rstrip("\r\n ").split(" ")
            if number == 1 and len(values) == 1:
                continue
            vector = _vector(path, number, values, len(vectors[0]) if vectors else None)
            if word not in words:
                words[word] = len(words)
                vectors.append(vector)
    if not vectors:
        raise InputError("no word vectors", where=path, expected="lines of a word and its values", found="none")
    table = np.concatenate([np.zeros((len(_SPECIALS), len(vectors[0])), np.float32), np.stack(vectors)])
    return embedding_of(torch.from_numpy(table)), _tokenizer(words)


def embedding_of(table: torch.Tensor) -> nn.Embedding:
    """A trainable embedding of the table (words, D)."""
    embedding = nn.Embedding(*table.shape)
    embedding.weight.data = table
    return embedding


def _vector(path: Path, number: int, values: list[str], width: int | None) -> np.ndarray:
    try:
        vector = np.array(values, np.float32)
    except ValueError:
        vector = np.empty(0, np.float32)
    if not len(vector) or len(vector) != (width or len(vector)) or not np.isfinite(vector).all():
        raise InputError(
            "not a line of word vectors",
            where=f"{path}, line {number}",
            expected=f"a word and {width or 'its'} values",
            found=" ".join(values[:3])[:60] or "no values",
        )
    return vector


def _tokenizer(words: dict[str, int]) -> PreTrainedTokenizerBase:
    backend = Tokenizer(WordLevel(words, unk_token=_SPECIALS[1]))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pad, unknown = _SPECIALS
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, unk_token=unknown)  # type: ignore[no-untyped-call]

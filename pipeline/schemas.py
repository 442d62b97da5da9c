"""Arrow schemas of the tables of a workspace, and their common version.

Identifiers are strings in input and output files (`external_id`) and dense int32 inside (`query_id`, `passage_id`: row
numbers of the `queries` and `passages` tables). Scores are raw logits.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

_LOGIT = {"unit": "raw logit"}
_QUERY = pa.field("query_id", pa.int32(), nullable=False)
_PASSAGE = pa.field("passage_id", pa.int32(), nullable=False)
_EXTERNAL = pa.field("external_id", pa.string(), nullable=False)
_TEXT = pa.field("text", pa.string(), nullable=False)
# The lower 64 bits of MD5 over the UTF-8 text. Scores are reused for equal texts, whatever their ids.
_TEXT_HASH = pa.field("text_hash", pa.uint64(), nullable=False)


def _logit(name: str) -> pa.Field:
    return pa.field(name, pa.float32(), nullable=False, metadata=_LOGIT)


PASSAGES = pa.schema([_PASSAGE, _EXTERNAL, _TEXT, _TEXT_HASH])
QUERIES = pa.schema([_QUERY, _EXTERNAL, _TEXT, _TEXT_HASH, pa.field("splits", pa.list_(pa.string()), nullable=False)])
QRELS = pa.schema([_QUERY, _PASSAGE, pa.field("grade", pa.int8(), nullable=False)])
# Judgements of passages that are not in the collection. No system can find them, but measures count them as relevant.
UNKNOWN_JUDGEMENTS = pa.schema([_QUERY, _EXTERNAL, pa.field("grade", pa.int8(), nullable=False)])
RETRIEVED = pa.schema(
    [
        _QUERY,
        _PASSAGE,
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
SCORES = pa.schema([_QUERY, _PASSAGE, _logit("score")])
TRIPLES = pa.schema(
    [
        _QUERY,
        pa.field("positive_id", pa.int32(), nullable=False),
        pa.field("negative_id", pa.int32(), nullable=False),
        _logit("positive_score"),
        _logit("negative_score"),
        _logit("margin"),
        _logit("margin_std"),
    ]
)
LISTS = pa.schema(
    [
        _QUERY,
        pa.field("passage_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False, metadata=_LOGIT),
    ]
)


def pairs(systems: list[str]) -> pa.Schema:
    """Schema of `pairs`: with a nullable `rank_<system>` column per retriever, in the order of `systems`."""
    ranks = [pa.field(f"rank_{system}", pa.int16()) for system in systems]
    return pa.schema([_QUERY, _PASSAGE, pa.field("grade", pa.int8()), *ranks])

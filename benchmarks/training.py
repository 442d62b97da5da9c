"""Compare the speed of training with the trainer of sentence-transformers: same model, triples, loss and batches.

    python benchmarks/training.py --init CHECKPOINT --steps 40 --batch-size 16

A dense student learns margins of synthetic triples with the lengths of MS MARCO. Our steps include everything except
tokenisation, which is done once before and timed separately; sentence-transformers tokenises in its loop. Time is taken
from the end of the first step to the end of the last, in wall and CPU seconds; other load on the machine hardly affects
CPU time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from synthetic import PASSAGE_WORDS, QUERY_WORDS, texts, words

from students.settings import StudentSettings, TrainSettings
from students.token_rows import TextRows, Tokens
from students.training.batches import Batch
from students.training.loop import train
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.loading import load_tokenizer


class Triples:
    """Triple i has query i and passages 2i and 2i + 1."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.scores = np.random.default_rng(0).normal(0, 4, (rows, 2)).astype(np.float32)

    def batch(self, epoch: int, start: int, size: int) -> Batch:  # noqa: ARG002
        """Rows start to start + size."""
        query = np.arange(start, min(start + size, self.rows), dtype=np.int32)
        return Batch(query, np.stack([2 * query, 2 * query + 1], 1), self.scores[query])


class Clock:
    """Wall and processor time between the first and the last step."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def tick(self, *_: object) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def rates(self, batch_size: int) -> dict[str, float]:
        wall, cpu = (last - first for first, last in zip(self.times[0], self.times[-1], strict=True))
        triples = (len(self.times) - 1) * batch_size
        return {"triples_per_s": round(triples / wall, 3), "triples_per_cpu_s": round(triples / cpu, 3)}


def ours(options: argparse.Namespace, triples: Triples, query: list[str], passage: list[str]) -> dict[str, float]:
    tokenizer = load_tokenizer(resolve(options.init))
    started = time.perf_counter()
    tokens = Tokens(*(TextRows.of(tokenizer, some).texts for some in (query, passage)))
    tokenised = time.perf_counter() - started
    settings = TrainSettings(
        "bert_dot",
        options.init,
        "margin_mse",
        "synthetic",
        batch_size=options.batch_size,
        precision="bfloat16" if options.bfloat16 else "float32",
        save_steps=10**9,
        max_steps=options.steps,
        student=StudentSettings(30, options.max_length, pooling="mean", normalize=False),
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(settings, triples, tokens, Path(folder), on_step=clock.tick)
    return {
        **clock.rates(options.batch_size),
        "data_wait_share": round(trained.data_seconds / trained.seconds, 5),
        "tokenised_before_s": round(tokenised, 3),
    }


def theirs(options: argparse.Namespace, triples: Triples, query: list[str], passage: list[str]) -> dict[str, float]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import TrainerCallback

    transformer = Transformer(options.init, max_seq_length=options.max_length)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling])
    data = Dataset.from_dict(
        {
            "query": query,
            "positive": passage[::2],
            "negative": passage[1::2],
            "label": (triples.scores[:, 0] - triples.scores[:, 1]).tolist(),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=2e-5,
            weight_decay=0.01,
            warmup_steps=options.steps // 10,
            bf16=options.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=max(1, options.steps // 200),
            report_to="none",
            disable_tqdm=True,
        )
        clock = Clock()

        class Steps(TrainerCallback):
            def on_step_end(self, *_: object, **__: object) -> None:
                clock.tick()

        trainer = SentenceTransformerTrainer(model, arguments, data, loss=MarginMSELoss(model), callbacks=[Steps()])
        trainer.train()
    return clock.rates(options.batch_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="Measure both trainers this many times, in turn.")
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = options.steps * options.batch_size
    vocabulary, rng = words(), np.random.default_rng(1)
    query, passage = (
        texts(vocabulary, rng, count, mean).to_pylist()
        for count, mean in ((rows, QUERY_WORDS), (2 * rows, PASSAGE_WORDS))
    )
    for _ in range(options.rounds):
        for name, run in (("prep", ours), ("sentence-transformers", theirs)):
            print(json.dumps({"trainer": name, **run(options, Triples(rows), query, passage)}), flush=True)


if __name__ == "__main__":
    main()

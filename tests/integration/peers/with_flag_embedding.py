"""FlagEmbedding's runner distils an embedder from our file: python with_flag_embedding.py EXPORT MODEL OUTPUT."""

import json
import os
import sys

import torch
from FlagEmbedding.finetune.embedder.encoder_only.base import (
    EncoderOnlyEmbedderDataArguments,
    EncoderOnlyEmbedderModelArguments,
    EncoderOnlyEmbedderRunner,
    EncoderOnlyEmbedderTrainingArguments,
)

export, checkpoint, output = sys.argv[1:]
# It asks torch.distributed for its rank, even alone.
store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
os.environ["ACCELERATE_USE_CPU"] = "true"
runner = EncoderOnlyEmbedderRunner(
    EncoderOnlyEmbedderModelArguments(model_name_or_path=checkpoint),
    EncoderOnlyEmbedderDataArguments(
        train_data=[f"{export}/train.jsonl"],
        cache_path=f"{output}/cache",
        train_group_size=4,
        passage_max_len=48,
        knowledge_distillation=True,
        same_dataset_within_batch=True,
        query_instruction_for_retrieval="",
        query_instruction_format="{}{}",
    ),
    EncoderOnlyEmbedderTrainingArguments(
        output_dir=output,
        max_steps=3,
        per_device_train_batch_size=2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    ),
)
queries, passages, scores = runner.train_dataset._create_batch_data(runner.train_dataset.dataset[:5])
rows_read = [(query, passages[4 * i : 4 * i + 4], scores[4 * i : 4 * i + 4]) for i, query in enumerate(queries)]
runner.run()
step_losses = [entry["loss"] for entry in runner.trainer.state.log_history if "loss" in entry]
print("\n" + json.dumps({"rows": len(runner.train_dataset.dataset), "read": rows_read, "losses": step_losses}))

"""PyLate reads our three tables and distils a ColBERT: python with_pylate.py EXPORT MODEL OUTPUT."""

import json
import sys

from datasets import load_dataset
from pylate import losses, models, utils
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

export, checkpoint, output = sys.argv[1:]
train, queries, documents = (load_dataset(export, name, split="train") for name in ("train", "queries", "documents"))
train.set_transform(utils.KDProcessing(queries=queries, documents=documents).transform)
model = models.ColBERT(checkpoint, device="cpu", query_length=16, document_length=48)
trainer = SentenceTransformerTrainer(
    model=model,
    args=SentenceTransformerTrainingArguments(
        output_dir=output,
        max_steps=3,
        per_device_train_batch_size=4,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=train,
    loss=losses.Distillation(model=model),
    data_collator=utils.ColBERTCollator(tokenize_fn=model.tokenize),
)
trainer.train()
rows_read = [(row["query"], row["documents"], row["scores"]) for row in train.select(range(5))]
step_losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print("\n" + json.dumps({"rows": len(train), "read": rows_read, "losses": step_losses}))

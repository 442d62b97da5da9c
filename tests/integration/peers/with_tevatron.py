"""Tevatron's loader and trainer learn from our file: python with_tevatron.py EXPORT MODEL OUTPUT."""

import json
import sys
from pathlib import Path

from tevatron.arguments import DataArguments, DenseTrainingArguments, ModelArguments
from tevatron.data import QPCollator, TrainDataset
from tevatron.datasets import HFTrainDataset
from tevatron.modeling import DenseModel
from tevatron.trainer import DenseTrainer
from transformers import AutoConfig, AutoTokenizer, BertTokenizer

export, checkpoint, output = sys.argv[1:]
named = ModelArguments(model_name_or_path=checkpoint)
data = DataArguments(
    dataset_name=export, train_n_passages=4, q_max_len=16, p_max_len=48, data_cache_dir=f"{output}/cache"
)
training = DenseTrainingArguments(
    output_dir=output,
    max_steps=3,
    per_device_train_batch_size=4,
    logging_steps=1,
    report_to=[],
    save_strategy="no",
    use_cpu=True,
    disable_tqdm=True,
)
# It encodes ids again, which slow tokenizers alone can do; those read a vocabulary in lines.
vocabulary = AutoTokenizer.from_pretrained(checkpoint).get_vocab()
Path(output, "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
tokenizer = BertTokenizer(f"{output}/vocab.txt")
model = DenseModel.build(named, data, training, config=AutoConfig.from_pretrained(checkpoint))
loaded = HFTrainDataset(tokenizer=tokenizer, data_args=data, cache_dir=data.data_cache_dir)
rows_read = [
    (
        row["query"],
        [passage["text"] for side in ("positive", "negative") for passage in row[f"{side}_passages"]],
        [passage["score"] for side in ("positive", "negative") for passage in row[f"{side}_passages"]],
    )
    for row in loaded.dataset.select(range(5))
]
dataset = TrainDataset(data, loaded.process(), tokenizer)
trainer = DenseTrainer(
    model=model,
    args=training,
    train_dataset=dataset,
    data_collator=QPCollator(tokenizer, max_p_len=data.p_max_len, max_q_len=data.q_max_len),
)
dataset.trainer = trainer
trainer.train()
step_losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print("\n" + json.dumps({"rows": len(dataset), "read": rows_read, "losses": step_losses}))

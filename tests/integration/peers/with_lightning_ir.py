"""lightning-ir reads our run, with its texts through ir_datasets: python with_lightning_ir.py EXPORT MODEL OUTPUT."""

import json
import os
import sys

export, checkpoint, output = sys.argv[1:]
# Where ir_datasets puts its look-up files.
os.environ["IR_DATASETS_HOME"] = f"{output}/ir_datasets"

from lightning_ir import (  # noqa: E402
    CrossEncoderModule,
    LightningIRDataModule,
    LightningIRTrainer,
    RegisterLocalDatasetCallback,
    RunDataset,
    SupervisedMarginMSE,
)
from lightning_ir.models import MonoConfig  # noqa: E402
from torch.optim import AdamW  # noqa: E402

texts = RegisterLocalDatasetCallback("train", docs=f"{export}/docs.jsonl", queries=f"{export}/queries.jsonl")
texts.setup(None, None, "fit")
dataset = RunDataset(f"{export}/train.tsv", depth=4, sample_size=4, sampling_strategy="top", targets="score")
module = CrossEncoderModule(checkpoint, MonoConfig(), loss_functions=[SupervisedMarginMSE()])
module.set_optimizer(AdamW, lr=1e-3)
step_losses = []
step = module.training_step


def recorded_step(batch, *rest):
    loss = step(batch, *rest)
    step_losses.append(loss["loss"].item())
    return loss


module.training_step = recorded_step
trainer = LightningIRTrainer(
    max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(module, LightningIRDataModule(train_dataset=dataset, train_batch_size=4))
samples = [dataset[i] for i in range(5)]
rows_read = [(sample.query, list(sample.docs), sample.targets.flatten().tolist()) for sample in samples]
print("\n" + json.dumps({"rows": len(dataset), "read": rows_read, "losses": step_losses}))

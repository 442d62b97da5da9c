"""ColBERT reads our numbered examples, queries and collection: python with_colbert.py EXPORT MODEL OUTPUT.

Its training loop needs a CUDA device, so this script takes the steps with its batcher, its model and its loss.
"""

import json
import sys

import torch
from colbert.data.collection import Collection
from colbert.data.examples import Examples
from colbert.data.queries import Queries
from colbert.infra import ColBERTConfig
from colbert.modeling.colbert import ColBERT
from colbert.training.lazy_batcher import LazyBatcher

export, checkpoint, output = sys.argv[1:]
files = [f"{export}/numbered/{name}" for name in ("examples.json", "queries.tsv", "collection.tsv")]
examples, queries, collection = Examples.cast(files[0]).tolist(), Queries.cast(files[1]), Collection.cast(files[2])
ways = len(examples[0]) - 1
config = ColBERTConfig(nway=ways, bsize=4, accumsteps=1, checkpoint=checkpoint, doc_maxlen=48, root=output, amp=False)
# It is compiled for search on a CPU only.
ColBERT.loaded_extensions = True
model = ColBERT(name=checkpoint, colbert_config=config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
step_losses = []
for _, ((encoded, passages, scores),) in zip(range(3), LazyBatcher(config, *files), strict=False):
    student = torch.log_softmax(model(encoded, passages).view(-1, ways), dim=-1)
    teacher = torch.log_softmax(torch.tensor(scores).view(-1, ways), dim=-1)
    loss = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)(student, teacher)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    step_losses.append(loss.item())
rows_read = [
    (queries[query], [collection[number] for number, _ in pairs], [score for _, score in pairs])
    for query, *pairs in examples[:5]
]
print("\n" + json.dumps({"rows": len(examples), "read": rows_read, "losses": step_losses}))

"""Scores as plain transformers gives them: one pair at a time, the tokenizer's own pair call, float32, on the CPU.

Slow, and the definition of right: what the engine is checked against.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.cross_encoder import load_cross_encoder
from teachers.checkpoints.loading import load_tokenizer
from teachers.engine.torch_model import TorchModel
from teachers.scorer import Pairs
from teachers.settings import ScoringSettings
from teachers.tokens.called_pairs import CalledPairs


def plain_scores(checkpoint: Checkpoint, settings: ScoringSettings, pairs: Pairs) -> NDArray[np.float32]:
    """Raw logits (N,); of the settings, length and truncation count.

    Raises:
        InputError: as `teachers.engine.engine`.
        ModelError: the checkpoint cannot be loaded.
    """
    settings = checkpoint.definition.applied(settings)
    model = load_cross_encoder(checkpoint)
    encoded = CalledPairs(
        load_tokenizer(checkpoint, model.config),
        pairs.prompted(settings.prompts),
        with_types=model.has_token_types,
        max_length_tokens=settings.max_length_tokens,
        truncation=settings.truncation,
    )
    running = TorchModel(model, torch.float32, torch.device("cpu"), as_it_is=True)
    rows = np.arange(len(encoded.lengths))
    return np.concatenate([running.start(encoded.assemble(rows[i : i + 1]))().values for i in rows])

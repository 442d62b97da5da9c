"""Every setting of the optimiser reaches the Trainer."""

import pytest

from students.settings import TrainSettings
from students.training.loop import training_arguments


@pytest.mark.parametrize("factor", [1, 2])
def test_settings_reach_the_trainer(tmp_path, factor):
    given = {
        "learning_rate": 3e-5 * factor,
        "weight_decay": 0.03 * factor,
        "max_gradient_norm": 2.5 * factor,
        "seed": 7 * factor,
        "save_steps": 11 * factor,
        "batch_size": 5 * factor,
        "warmup_steps": 4 * factor,
    }
    settings = TrainSettings("bert_dot", "x", "ranknet", schedule="cosine", **given)
    found = training_arguments(settings, 40, tmp_path)
    names = {"max_gradient_norm": "max_grad_norm", "batch_size": "per_device_train_batch_size"}
    assert {name: getattr(found, names.get(name, name)) for name in given} == given
    assert (found.lr_scheduler_type, found.max_steps) == ("cosine", 40)

"""Keys of config.json, checked against the configuration class that transformers has for the model.

Transformers keeps keys that its class does not know as attributes, and most of its models never read them: a relative
position embedding of an older version, for example, would be left out in silence.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from teachers.checkpoints.known_keys import HARMLESS_CONFIG, HARMLESS_VALUES, PUBLISHED_CONFIG, READ_BY_MODELS
from teachers.checkpoints.model_files import Keys, read_object


def check_config(config: PreTrainedConfig, directory: Path) -> None:
    """Check the keys of config.json against the class that was made from it.

    Raises:
        ModelError: a key that neither the class knows nor a list of harmless ones holds; names the file and the key.
    """
    path = directory / "config.json"
    stated = read_object(path)
    left_over = {key: value for key, value in stated.items() if key in vars(config) and key not in _known(config)}
    keys = Keys(path, left_over, harmless=HARMLESS_CONFIG | READ_BY_MODELS)
    for key, harmless in HARMLESS_VALUES.items():
        if key in keys:
            keys.choice(key, harmless, harmless[0])
    keys.close()
    if isinstance(own := stated.get("sentence_transformers"), dict):
        Keys(Path(f"{path}: sentence_transformers"), own, harmless=("activation_fn", "version")).close()


def check_published(stated: Mapping[str, Any], directory: Path) -> None:
    """Check the keys of config.json in a form that has no class in transformers, but an encoder that has one.

    Raises:
        ModelError: a key that no encoder of these forms knows; names the file and the key.
    """
    kind = str(stated.get("encoder_type"))
    kinds = [CONFIG_MAPPING[kind]] if kind in CONFIG_MAPPING else [CONFIG_MAPPING[name] for name in _PUBLISHED_ENCODERS]
    known = {name for made in kinds for name in _known(made())}
    Keys(directory / "config.json", stated, harmless=known | HARMLESS_CONFIG | PUBLISHED_CONFIG).close()


_PUBLISHED_ENCODERS = ("bert", "distilbert", "electra", "albert")


def _known(config: PreTrainedConfig) -> set[str]:
    """Names that the class has by itself."""
    known = {own.name for own in fields(config)} if is_dataclass(config) else set(vars(type(config)))
    # Older names, which the class translates when it is built.
    named = re.findall(r"[\"']([a-z_0-9]+)[\"']|\.([a-z_0-9]+)", inspect.getsource(type(config)))
    return known | {name for pair in named for name in pair} | set(config.attribute_map)

"""Settings of the whole suite, and fixtures of the small collection that most tests use."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("PREP_WORKSPACE", None)

import pytest
import torch
from hypothesis import HealthCheck, settings

from pipeline.storage.workspace import Workspace
from tests import worlds

# Time decides nothing on a shared machine, and the same commit gives the same verdict in CI.
settings.register_profile(
    "prep", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("prep")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads slow down tiny matrices, since they wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """An imported collection of 80 passages, 16 train and 8 dev queries."""
    return worlds.imported(tmp_path)


@pytest.fixture
def paired(workspace) -> Workspace:
    """The same workspace, mined, with shards of about 40 pairs."""
    return worlds.paired(workspace)

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# Crops of tests are too small to share between threads, and threads that wait for each other are slow
# beside whatever else the machine does. Before torch is imported; child processes take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hundreds of tests make networks of their own, and each conversion takes a second; tests of the engines
# name theirs.
os.environ.setdefault("CELLFLOW_ENGINE", "torch")

sys.path.insert(0, str(Path(__file__).parent))  # model_server
sys.path.insert(0, str(Path(__file__).parent / "storage"))  # faults

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that train most come first: one that comes last keeps one process busy and the others idle."""
    cost: Counter[Path] = Counter()
    for item in items:
        training = "tiny_config" in getattr(item, "fixturenames", ())
        cost[item.path] += 10 if item.get_closest_marker("slow") else int(training)
    items.sort(key=lambda item: -cost[item.path])


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlive a power cut; what commands in processes of their own write is synced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def fresh_logger() -> None:
    """What a command of an earlier test set up for its console does not change what this one logs."""
    logger = logging.getLogger("cellflow")
    logger.setLevel(logging.NOTSET)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and a real model, kept outside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real images and models in {SHARED}, which are not there")
    return SHARED

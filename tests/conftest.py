from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

# Crops of tests are too small to share between threads, and threads that wait for each other are slow
# beside whatever else the machine does. Before torch is imported; child processes take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent / "storage"))  # faults

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a long one that comes last keeps one process busy and the others idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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

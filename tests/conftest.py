from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and a real model, kept outside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real images and models in {SHARED}, which are not there")
    return SHARED

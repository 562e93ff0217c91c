"""Commands that only look at something start at once: what they need not, they do not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cellflow.cli import COMMANDS
from cellflow.storage.run_folder import RunFolder

HEAVY = {"torch", "sklearn", "numba", "skimage", "matplotlib", "zarr", "openvino", "scipy"}
TABLES = HEAVY | {"pandas", "numpy"}

PROGRAM = """
import json, sys
from cellflow.cli import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)))
"""


def modules(folder: Path, *words: str) -> tuple[str, set[str]]:
    """What a command says, and what it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    return "\n".join(lines), set(json.loads(last))


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help(tmp_path: Path, words: list[str]) -> None:
    said, imported = modules(tmp_path, *words)
    assert said.startswith("usage: cellflow")
    assert ">>>" not in said and "Examples" not in said  # those of the docstring are for Python
    assert not imported & TABLES


def test_runs(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "exp")
    run.path.mkdir(parents=True)
    run.record_path.write_text("{}")
    said, imported = modules(tmp_path, "runs")
    assert "exp" in said
    assert not imported & HEAVY

"""The whole job, with two folds where `make demo` has three."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pandas as pd
import pytest

from cellflow.config import DemoConfig
from cellflow.engine.experiments.demo import DemoResult, demo
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.submission import read_submission


@pytest.mark.slow
@pytest.mark.usefixtures("full_width")
def test_demo(tmp_path: Path) -> None:
    result = demo(DemoConfig(out=tmp_path / "demo", k=2))
    check(result, tmp_path / "demo")
    assert result.score >= 0.5
    # What cross-validation promises is what unseen images give, within what six images can tell.
    overall = float(result.cv["best_epoch"].iloc[-1])
    assert overall == pytest.approx(result.score, abs=0.15)


def test_a_small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the docstring. One epoch teaches nothing; everything that is written is there all the same."""
    monkeypatch.chdir(tmp_path)
    (case,) = doctest.DocTestFinder().find(demo, "demo", inspect.getmodule(demo), globs={})
    assert doctest.DocTestRunner().run(case, clear_globs=False).failed == 0
    check(case.globs["result"], tmp_path / "cellflow-demo")


def check(result: DemoResult, out: Path) -> None:
    assert result.members == 2
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    assert list(result.cv["scope"]) == ["fold"] * 2 + ["cell_type"] * 3 + ["overall"]
    unseen = {path.stem: (256, 256) for path in (out / "unseen" / "images").iterdir()}
    assert set(read_submission(result.submission)) == set(unseen)
    predicted = read_source(result.submission, ReadOptions("prediction")).images
    for name, image in predicted.items():
        image.labels(unseen[name])
    # No image that the ensemble is scored on, and no well of one, is in any fold.
    seen = Dataset.open(out / "data").images
    table = pd.read_csv(out / "unseen" / "table.csv")
    assert not set(table["id"]) & set(seen.index)
    assert not set(table["group"]) & set(seen["group"])


def test_demo_replaces_only_a_demo(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(DataError, match=r"not empty and no earlier demo.*--out"):
        demo(DemoConfig(out=tmp_path))
    assert (tmp_path / "thesis.txt").exists()


def test_demo_problems() -> None:
    with pytest.raises(ConfigError, match=r"--images must be even.*"):
        demo(DemoConfig(images=25))

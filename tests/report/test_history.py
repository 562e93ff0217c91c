"""The picture of a training: whole for every history there can be, and never half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from skimage.io import imread

from cellflow.report.history import HISTORY_COLUMNS, plot_history

pytestmark = pytest.mark.filterwarnings("error")

COLUMNS = [*HISTORY_COLUMNS[1:], "train_flow_loss", "train_cellprob_loss"]
PANELS = {"loss": (70, 340), "score": (390, 650), "rate": (695, 825), "norm": (880, 1005)}
"""Rows of the four panels, well within their frames."""


def history(n: int, *, every: int = 5, ema: bool = True, start: bool = True) -> pd.DataFrame:
    """Rows as the trainer keeps them: a loss that falls, a score that rises."""
    rng = np.random.default_rng(0)
    epochs = np.arange(0 if start else 1, n + 1)
    trained = np.where(epochs > 0, 1.0, np.nan)
    evaluated = np.where(epochs % every == 0, 1.0, np.nan)
    loss = (0.2 + np.exp(-4 * epochs / n)) * rng.uniform(0.9, 1.1, len(epochs))
    score = 0.4 * (1 - np.exp(-4 * epochs / n)) * evaluated
    return pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": loss * trained,
            "train_flow_loss": 0.7 * loss * trained,
            "train_cellprob_loss": 0.3 * loss * trained,
            "learning_rate": 0.2 * np.minimum(1, epochs / 10) * trained,
            "grad_norm": 2 * loss * trained,
            "skipped_steps": (epochs == 3).astype(int),
            "val_loss": 1.1 * loss * evaluated,
            "val_score": score,
            "val_score_ema": score + 0.01 if ema else np.full(len(epochs), np.nan),
            "best_score": pd.Series(score).ffill(),
            "images_per_second": 4.0 * trained,
            "seconds": 20.0 * trained,
            "waited": 0.5 * trained,
        }
    )


def drawn(path: Path, table: pd.DataFrame) -> dict[str, int]:
    """Make the picture; number of strongly coloured pixels in each panel."""
    plot_history(path, table, title="Run exp, fold 0")
    picture = imread(path)[..., :3].astype(int)
    assert picture.shape == (1100, 1100, 3)
    coloured = picture.max(axis=2) - picture.min(axis=2) > 60
    return {name: int(coloured[low:high, 110:].sum()) for name, (low, high) in PANELS.items()}


@pytest.mark.parametrize(("n", "every", "ema"), [(40, 5, True), (40, 1, False), (5000, 50, True)])
def test_all_panels_are_filled(tmp_path: Path, n: int, every: int, ema: bool) -> None:
    found = drawn(tmp_path / "history.png", history(n, every=every, ema=ema))
    assert min(found.values()) > 150, found


def test_many_evaluations(tmp_path: Path) -> None:
    assert min(drawn(tmp_path / "history.png", history(5000, every=1)).values()) > 150


def test_one_row(tmp_path: Path) -> None:
    found = drawn(tmp_path / "history.png", history(1, start=False))
    assert found["loss"] > 30
    assert found["score"] == 0
    assert found["norm"] > 10


def test_start_model_alone(tmp_path: Path) -> None:
    found = drawn(tmp_path / "history.png", history(1).head(1))
    assert found["score"] > 30
    assert found["rate"] == found["norm"] == 0


def test_no_evaluation_yet(tmp_path: Path) -> None:
    found = drawn(tmp_path / "history.png", history(4, start=False))
    assert found["score"] == 0
    assert found["loss"] > 150


WAYS = ("nan", "gone", "none")
EVERY = [(column, way) for column in COLUMNS for way in WAYS]
ONE_WAY_EACH = [(column, WAYS[place % 3]) for place, column in enumerate(COLUMNS)]


@pytest.mark.parametrize(
    ("column", "way"),
    [
        *(("all", way) for way in WAYS),
        *ONE_WAY_EACH,
        *(
            pytest.param(*case, marks=pytest.mark.slow)  # together
            for case in EVERY
            if case not in ONE_WAY_EACH
        ),
    ],
)
def test_column_that_is_unknown(
    tmp_path: Path, column: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellflow.report._figure.DPI", 30)  # quick
    table = history(12)
    names = COLUMNS if column == "all" else [column]
    if way == "gone":
        table = table.drop(columns=names)
    else:
        table = table.astype(object)
        table[names] = np.nan if way == "nan" else None
    plot_history(tmp_path / "history.png", table, title="")
    assert imread(tmp_path / "history.png").shape == (300, 300, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.0},
        {"learning_rate": 0.005, "grad_norm": 1.0, "train_loss": 1.0},
        {"grad_norm": np.inf, "train_loss": np.nan, "val_score": 0.0, "best_score": 0.0},
        {"train_loss": 1e30, "val_loss": 1e-30},
        {"train_loss": 0.0, "train_flow_loss": 0.0, "train_cellprob_loss": 0.0, "val_loss": 0.0},
        {"seconds": 0.0, "waited": 0.0},
        {"seconds": 5e6, "skipped_steps": 3},
        {"val_score": 1.0, "val_score_ema": 1.0, "best_score": 1.0},
    ],
)
def test_odd_values(tmp_path: Path, changes: dict[str, Any]) -> None:
    plot_history(tmp_path / "history.png", history(12).assign(**changes), title="odd")


def test_no_rows(tmp_path: Path) -> None:
    plot_history(tmp_path / "a.png", pd.DataFrame(), title="")
    plot_history(tmp_path / "b.png", history(3).head(0), title="")


def test_best_is_told_with_its_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = history(40)
    table.loc[table["epoch"] == 20, ["val_score", "val_score_ema"]] = 0.9, 0.95
    table.loc[table["epoch"] >= 20, "best_score"] = 0.95
    assert "0.9500 at epoch 20" in texts(tmp_path, table, monkeypatch)


def test_caption_tells_time_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = "\n".join(texts(tmp_path, history(600), monkeypatch))
    assert "600 epochs" in found
    assert "3 h 20 min of training steps" in found
    assert "4 images per second" in found
    assert "2% of the time spent waiting for crops" in found
    assert "1 skipped step" in found


def test_every_term_of_the_loss_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = texts(tmp_path, history(5).assign(train_edge_loss=0.1), monkeypatch)
    assert {"its flow part", "its cellprob part", "its edge part"} <= set(found)


def texts(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is written in the picture."""
    kept: list[Figure] = []
    monkeypatch.setattr(
        "cellflow.report.history.save_figure", lambda path, figure: kept.append(figure)
    )
    plot_history(tmp_path / "unused.png", table, title="")
    return [item.get_text() for item in kept[0].findobj(lambda item: hasattr(item, "get_text"))]


def test_replaces_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "history.png"
    path.write_bytes(b"old")
    plot_history(path, history(3), title="")
    assert imread(path).shape == (1100, 1100, 4)
    assert [item.name for item in tmp_path.iterdir()] == ["history.png"]


def test_failure_leaves_nothing_and_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.png"
    plot_history(path, history(3), title="")
    before = path.read_bytes()

    def fails(target: Path, data: bytes) -> None:
        with target.open("wb") as file:
            file.write(data[:4])
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match=r"No space left on device.*history\.png"):
        plot_history(path, history(5), title="")
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["history.png"]


def test_history_is_not_changed(tmp_path: Path) -> None:
    table = history(7)
    before = table.copy()
    plot_history(tmp_path / "history.png", table, title="")
    pd.testing.assert_frame_equal(table, before)

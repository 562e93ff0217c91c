"""Pictures of truth and prediction that `cellflow oof` and `cellflow score` leave in a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cellflow import cli
from cellflow.config import OofConfig, RuntimeConfig, ScoreConfig, TrainConfig
from cellflow.engine.validation.oof import oof
from cellflow.engine.validation.score_masks import score_masks
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")


@pytest.mark.slow
def test_oof_draws_its_images_and_counts_their_cells(copied: TrainConfig) -> None:
    config = OofConfig(run="tiny", runs_dir=copied.runs_dir, policy="dataset", runtime=CPU)
    plain = oof(config)
    assert plain.outlines is None
    run = RunFolder(copied.runs_dir / "tiny")
    assert not (run.oof / "outlines").exists()
    scores = pd.read_csv(run.scores)
    assert (scores["n_found"] + scores["n_missed"] == scores["n_true"]).all()
    assert {"precision", "recall", "f1"} <= set(pd.read_csv(run.cv))

    sheet = score_masks(ScoreConfig(pred=str(run.path), outlines=True)).outlines
    assert sheet == run.oof / "outlines" / "worst.png"
    index = pd.read_csv(run.oof / "outlines" / "index.csv").set_index("id")
    assert (index["n_missed"].sort_index() == scores.set_index("id")["n_missed"].sort_index()).all()
    drawn = {path.name: path.read_bytes() for path in sheet.parent.iterdir()}
    assert len(drawn) == 8

    again = oof(OofConfig(**{**vars(config), "outlines": True}))
    assert again.outlines == sheet
    assert {path.name: path.read_bytes() for path in sheet.parent.iterdir()} == drawn
    oof(config)
    assert not sheet.exists()  # pictures of an older pass do not stay


def test_the_command_says_where_they_are(
    copied: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tiny", "--runs_dir", str(copied.runs_dir), "--policy", "dataset", "--outlines"]
    cli.run_command("oof", [*words, "--device", "cpu", "--amp", "off"])
    shown = capsys.readouterr().out
    folder = Path(copied.runs_dir) / "tiny" / "oof" / "outlines"
    assert f"Pictures: {folder}, worst first" in shown
    assert "CELLS" in shown and "precision" in shown

"""A new term of the loss: one line where the terms are, and it is in every table, picture and tracker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from cellflow.config import TrainConfig
from cellflow.engine.training import fold_pictures
from cellflow.engine.training.train import train
from cellflow.nn import loss
from cellflow.nn.checkpoint import load_state
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import read_journal


@pytest.fixture(autouse=True)
def roughness(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newcomer would write into `loss_terms`: flows without jumps."""
    terms = loss.loss_terms

    def with_roughness(
        output: torch.Tensor, unit_flow: torch.Tensor, foreground: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        rough = 0.1 * output[:, :2].diff(dim=-1).square().mean()
        return terms(output, unit_flow, foreground) | {"rough": rough}

    monkeypatch.setattr(loss, "loss_terms", with_roughness)


@pytest.mark.slow
def test_a_new_term_is_everywhere_and_resumes_to_the_bit(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[pd.DataFrame] = []
    monkeypatch.setattr(
        fold_pictures, "plot_history", lambda path, table, title: drawn.append(table)
    )
    config = replace(tiny_config, runs_dir=tmp_path / "whole", fold=("0",))
    train(config)
    paused = replace(config, runs_dir=tmp_path / "paused", time_budget="0.001s")
    assert [train(paused)[0].epochs for _ in range(2)] == [0.5, 1]
    train(replace(paused, time_budget=None))

    runs = [RunFolder(item.runs_dir / config.name) for item in (config, paused)]
    whole, resumed = (pd.read_csv(run.fold(0).history) for run in runs)
    assert list(whole)[:5] == [
        "epoch", "train_loss", "train_flow_loss", "train_cellprob_loss", "train_rough_loss",
    ]  # fmt: skip
    assert list(resumed) == list(whole)
    columns = [name for name in whole.columns if str(name).startswith("train_")]
    epochs = resumed[resumed["epoch"] % 1 == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(epochs[columns], whole[columns])
    parts = whole[columns[1:]].sum(axis=1)
    pd.testing.assert_series_equal(parts, whole["train_loss"], check_names=False, rtol=1e-5)
    assert whole["train_rough_loss"].gt(0).all()
    assert "train_rough_loss" in drawn[-1]
    rows = [event["row"] for event in read_journal(runs[0].journal) if event["event"] == "epoch"]
    assert [row["train_rough_loss"] for row in rows] == list(whole["train_rough_loss"])
    one, other = (load_state(run.fold(0).last)["net"] for run in runs)
    assert all(torch.equal(value, other[name]) for name, value in one.items())

"""`cellflow oof --export`: files for other tools from out-of-fold predictions."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellflow import cli
from cellflow.config import ScoreConfig, TrainConfig
from cellflow.engine.exports import EXPORTS
from cellflow.engine.validation.score_masks import score_masks
from cellflow.io.flow_store import FlowStore
from cellflow.io.formats.seg_npy import read_seg_npy
from cellflow.io.images import read_image, read_labels
from cellflow.storage.atomic import write_json
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import RunFolder


def oof(config: TrainConfig, *words: object) -> None:
    flags = ["tiny", "--runs_dir", config.runs_dir, "--policy", "dataset", "--device", "cpu"]
    cli.run_command("oof", [str(word) for word in (*flags, "--amp", "off", *words)])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_from_a_pass_that_is_there(
    predicted: TrainConfig, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    run = RunFolder(predicted.runs_dir / "tiny")
    before = files(run.oof)
    oof(predicted, "--export", *EXPORTS)
    assert "the predictions are there" in caplog.text
    export = run.oof / "export"
    assert f"Exports: {export}" in capsys.readouterr().out
    now = files(run.oof)
    assert {name: now[name] for name in before} == before
    assert not [name for name in now if ".parts" in name]
    scores, store = pd.read_csv(run.scores), FlowStore(run.flows)
    for name in scores["id"]:
        labels = read_labels(run.oof / "masks" / f"{name}.tif")
        assert np.array_equal(read_labels(export / "masks" / f"{name}.tif"), labels)
        assert np.array_equal(read_image(export / "png" / f"{name}_cp_masks.png"), labels)
        assert np.array_equal(read_seg_npy(export / "seg" / f"{name}_seg.npy"), labels)
        with np.load(export / "flows" / f"{name}.npz") as arrays:
            flow, cellprob = store.read(name)
            assert np.array_equal(arrays["flow"], flow)
            assert np.array_equal(arrays["cellprob"], cellprob)
    cells = pd.read_csv(export / "cells.csv")
    assert len(cells) == scores["n_found"].sum()
    stored = pd.read_csv(run.oof / "predictions.csv", dtype=str)
    sent = pd.read_csv(export / "submission.csv", dtype=str).dropna()
    assert sorted(map(tuple, sent.to_numpy())) == sorted(map(tuple, stored.to_numpy()))
    again = score_masks(ScoreConfig(pred=str(export), truth=predicted.data)).images
    assert again["score"].sort_index().tolist() == pytest.approx(
        scores.sort_values("id")["score"].tolist()
    )


@pytest.mark.slow
def test_with_a_new_pass_and_stale_after_the_next(predicted: TrainConfig) -> None:
    run = RunFolder(predicted.runs_dir / "tiny")
    oof(predicted, "--cellprob_threshold", -1, "--export", "png")
    assert len(files(run.oof / "export")) == 6
    found = sum(read_image(path).max() for path in (run.oof / "export" / "png").iterdir())
    assert found == pd.read_csv(run.scores)["n_found"].sum()
    oof(
        predicted, "--export", "masks", "--cellprob_threshold", -1
    )  # another set replaces the first
    assert [path.name for path in (run.oof / "export").iterdir()] == ["masks"]
    oof(predicted)
    assert not (run.oof / "export").exists()


def test_without_flows(
    predicted: TrainConfig, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cellflow prune --flows` has removed them: label maps are enough for some exports."""
    caplog.set_level(logging.INFO)
    run = RunFolder(predicted.runs_dir / "tiny")
    shutil.rmtree(run.flows)
    oof(predicted, "--export", "png", "submission")
    assert "the predictions are there" in caplog.text
    before = files(run.oof)
    with pytest.raises(SystemExit):
        oof(predicted, "--export", "flows")
    assert re.search(r"flows\.zarr is gone.* cellflow oof ", capsys.readouterr().err)
    assert files(run.oof) == before


def test_neither_another_policy_nor_another_version_costs_the_calibration(
    predicted: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The pass was made with --policy dataset, by another torch; thresholds were fitted on it."""
    caplog.set_level(logging.INFO)
    run = RunFolder(predicted.runs_dir / "tiny")
    stored = read_json(run.oof_record)
    assert stored is not None
    write_json(run.oof_record, stored | {"versions": {"torch": "1.0"}})
    run.thresholds.write_text("{}")
    flags = ["tiny", "--runs_dir", str(predicted.runs_dir), "--device", "cpu", "--amp", "off"]
    cli.run_command("oof", [*flags, "--export", "png"])
    assert "the predictions are there" in caplog.text
    assert run.thresholds.exists()
    cli.run_command("oof", [*flags, "--export", "png", "--policy", "image"])
    assert "made with other policy; all images are predicted again" in caplog.text
    assert not run.thresholds.exists()


def test_models_that_have_changed_are_predicted_again(
    predicted: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = RunFolder(predicted.runs_dir / "tiny")
    text = run.oof_record.read_text()
    digest = text.partition('"0": "')[2][:8]
    run.oof_record.write_text(text.replace(digest, "0" * 8))
    oof(predicted, "--export", "png")
    assert "the predictions are there" not in caplog.text
    assert digest in run.oof_record.read_text()
    assert len(files(run.oof / "export")) == 6


def test_an_interrupted_export_leaves_the_pass(
    predicted: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(predicted.runs_dir / "tiny")
    before = files(run.oof)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EXPORTS["seg"], "write", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            oof(predicted, "--export", "png", "seg")
    assert files(run.oof) == before
    oof(predicted, "--export", "png", "seg")
    assert len(files(run.oof / "export")) == 12

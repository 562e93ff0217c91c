"""Kills and damage in runs: what is good stays, and the message says the way on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faults import failing, hidden, killed, write_folder

import cellflow
from cellflow.config import (
    EnsembleConfig,
    ModelExportConfig,
    OofConfig,
    OutputConfig,
    PseudoConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.runs.contents import read_table
from cellflow.engine.training.train import train
from cellflow.engine.validation.oof import oof
from cellflow.errors import CheckpointError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.storage.run_folder import RunFolder, find_run

CPU = RuntimeConfig(device="cpu", amp="off")


def oof_config(config: TrainConfig, policy: str = "dataset") -> OofConfig:
    return OofConfig(run=config.name, runs_dir=config.runs_dir, policy=policy, runtime=CPU)  # type: ignore[arg-type]


def check_oof(config: TrainConfig, policies: set[str]) -> None:
    """The predictions are there, whole and of one pass."""
    run = find_run(config.name, config.runs_dir)
    assert json.loads(run.oof_record.read_text())["policy"] in policies
    ids = set(read_table(run.scores, ["id", "score"])["id"])
    assert ids == set(FlowStore(run.flows)) == {path.stem for path in (run.oof / "masks").iterdir()}


@pytest.mark.slow
def test_oof_that_is_killed_or_fails_keeps_the_old_one(copied: TrainConfig) -> None:
    """In the middle, and at each step where the new takes the place of the old."""
    run = RunFolder(copied.runs_dir / copied.name)
    oof(oof_config(copied))
    with failing(None) as steps:
        oof(oof_config(copied))
    *_, aside, into = (at for at, name in enumerate(steps.names, 1) if name == "rename")
    for at in (steps.count // 3, aside, into, into + 1, into + 9):
        assert killed(at, oof, oof_config(copied))
        check_oof(copied, {"dataset"})
    for at in (aside, into, into + 1):
        with failing(at), pytest.raises(OSError, match="No space left") as caught:
            oof(oof_config(copied))
        assert caught.value.filename == str(run.oof)
        check_oof(copied, {"dataset"})
    oof(oof_config(copied, "image"))
    check_oof(copied, {"image"})
    assert [name for name in hidden(run.path) if ".lock" not in name] == []


@pytest.mark.parametrize("command", ["pseudo", "export"])
def test_what_was_written_whole_is_there_and_nothing_else(
    trained: TrainConfig, tmp_path: Path, command: str
) -> None:
    """A kill after the last rename leaves a lock file without a holder."""
    out = tmp_path / "place" / "name"
    with failing(None) as steps:
        write_folder(tmp_path / "other", "x")
    assert killed(steps.count, write_folder, out, "x")
    assert len(hidden(out.parent)) == 1
    config: PseudoConfig | ModelExportConfig
    if command == "pseudo":
        config = PseudoConfig(
            runs=(trained.name,), images=(trained.data,), name="name", out=out.parent
        )
    else:
        config = ModelExportConfig(run=trained.name, to="cellpose", out=out)
    with pytest.raises(DataError, match=r"already|or an earlier result"):
        getattr(cellflow, "export_model" if command == "export" else command)(
            replace(config, runs_dir=trained.runs_dir)
        )
    assert hidden(out.parent) == []


def test_a_damaged_state_does_not_cost_the_best_model(copied: TrainConfig) -> None:
    files = RunFolder(copied.runs_dir / copied.name).fold(1)
    best = files.best.read_bytes()
    data = bytearray(files.last.read_bytes())
    data[len(data) // 2] ^= 1
    files.last.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        train(replace(copied, fold=("1",)))
    said = str(caught.value)
    assert f"{files.last} cannot be read" in said
    assert f"--name NEW --pretrained_model {files.best}" in said
    assert files.best.read_bytes() == best
    model = replace(copied.model, diam_mean=None, pretrained_model=str(files.best))
    optim = replace(copied.optim, n_epochs=1)
    assert train(replace(copied, fold=("1",), name="new", model=model, optim=optim))
    files.best.write_bytes(best[:1000])
    with pytest.raises(CheckpointError, match="anew, remove") as caught:
        train(replace(copied, fold=("1",)))
    assert "NEW" not in str(caught.value)


def test_foreign_flows_that_mean_something_else_stop_the_ensemble_at_once(
    trained: TrainConfig, tmp_path: Path
) -> None:
    dataset = Dataset.open(trained.data)
    flows = tmp_path / "flows"
    flows.mkdir()
    config = EnsembleConfig(
        images=trained.data,
        runs=(trained.name,),
        runs_dir=trained.runs_dir,
        flows=(flows,),
        output=OutputConfig(out=tmp_path / "out"),
        runtime=CPU,
    )
    with pytest.raises(DataError, match=r"expected a file ID\.npz for every image, such as"):
        ensemble(config)
    for name in dataset.ids:
        inside = dataset.labels(name) > 0
        np.savez(
            flows / f"{name}.npz",
            flow=np.stack([inside, inside]) * 3.5,
            cellprob=np.where(inside, 3.0, -3.0),
            scale=1.0,
        )
    with pytest.raises(DataError, match=rf"{dataset.ids[0]}\.npz: scale 1 says"):
        ensemble(config)
    assert not (tmp_path / "out").exists()

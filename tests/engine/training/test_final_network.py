from __future__ import annotations

import logging
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cellflow import RunsConfig, cli, distil, list_runs
from cellflow.config import (
    CalibrateConfig,
    DistilConfig,
    GridConfig,
    ModelConfig,
    ModelExportConfig,
    OofConfig,
    RuntimeConfig,
    TrainConfig,
    VerifyConfig,
    check_config,
)
from cellflow.engine.model_exports.export_model import export_model
from cellflow.engine.publishing.published_files import run_files
from cellflow.engine.runs.contents import model_facts, vouching_run
from cellflow.engine.runs.metadata import read_metadata
from cellflow.engine.runs.next_command import train_command
from cellflow.engine.runs.sample_list import TRAINS, read_sample_list
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.segmentation.styles import read_style_models
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.engine.validation.verify import verify
from cellflow.errors import ConfigError, LeakError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import RESERVED
from cellflow.nn.precision import choose_device
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")


def test_none_stands_alone() -> None:
    with pytest.raises(ConfigError, match="found 0 none"):
        check_config(TrainConfig(fold=("0", "none")))
    check_config(TrainConfig(fold=("none",)))


@pytest.fixture
def calibrated(predicted: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A run of two folds with thresholds."""
    grid = GridConfig(0.0, 1.0, 2, flow_thresholds=(0.0,), min_sizes=(15,), extras=False)
    places = {"runs_dir": predicted.runs_dir, "ensembles_dir": tmp_path / "ensembles"}
    calibrate(CalibrateConfig(runs=("tiny",), grid=grid, runtime=CPU, **places))
    return predicted


def test_a_network_on_all_images_takes_what_its_folds_found(
    calibrated: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = RunFolder(calibrated.runs_dir / "tiny")
    before = {path: hash_file(path) for path in folds.path.rglob("*.*") if path.is_file()}
    command = f"train --config {folds.settings('train')} --fold none --runs_dir {folds.path.parent}"
    with pytest.raises(SystemExit) as caught:
        cli.main(command.split())
    assert not caught.value.code
    text = capsys.readouterr()
    assert "the folds of run tiny vouch for it" in text.out
    assert "complete after epoch" in text.err and "best score" not in text.err
    assert "tiny-final" in text.out.splitlines()[-1] and "predict" in text.out.splitlines()[-1]
    assert {path: hash_file(path) for path in before} == before

    run, dataset = RunFolder(calibrated.runs_dir / "tiny-final"), Dataset.open(calibrated.data)
    files = run.fold(0)
    roles, split = read_sample_list(files.samples), dataset.folds()
    assert set(roles[split.index[split != RESERVED]]) == {TRAINS}
    facts = model_facts(files.best)
    assert facts["final"] is True
    assert [fold["score"] for fold in read_metadata(run)["model"]["folds"]] == [None]
    assert facts["epoch"] == calibrated.optim.n_epochs
    assert read_style_models(files.styles).model_hash == hash_file(files.best)

    machine = Machine(choose_device("cpu"))
    places = {"runs_dir": calibrated.runs_dir, "ensembles_dir": tmp_path / "ensembles"}
    opened = open_models(["tiny-final"], machine, **places)
    assert "of run tiny" in opened.thresholds.source
    assert opened.thresholds.shared == open_models(["tiny"], machine, **places).thresholds.shared
    assert len(opened.members) == 1
    by_file = open_models([str(files.best)], machine, **places)
    assert by_file.thresholds == opened.thresholds

    with pytest.raises(LeakError, match="--fold all"):
        oof(OofConfig(run="tiny-final", runs_dir=calibrated.runs_dir, runtime=CPU))
    with pytest.raises(LeakError, match="--fold all"):
        calibrate(CalibrateConfig(runs=("tiny-final",), runs_dir=calibrated.runs_dir))
    with pytest.raises(LeakError, match="tiny-final fold 0 cannot make targets"):
        distil(DistilConfig(runs=("tiny-final",), name="s", runs_dir=calibrated.runs_dir))
    found = verify(VerifyConfig(run.path))
    assert found.problems == 0 and not found.findings
    row = list_runs(RunsConfig(runs_dir=calibrated.runs_dir)).set_index("name").loc["tiny-final"]
    assert row["status"] == "trained" and pd.isna(row["best_val"])
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", str(run.path)])
    assert not caught.value.code
    assert "no score of it is honest" in run.report.read_text()

    published = run_files(run, {0: files.best}, ensembles_dir=tmp_path)
    assert published["thresholds.json"] == folds.thresholds
    run.oof.mkdir()
    shutil.copyfile(published["oof/oof.json"], run.oof_record)  # as it lies in a published run
    assert verify(VerifyConfig(run.path)).problems == 0
    shutil.rmtree(run.oof)

    # what leaves without the folds keeps what they found
    archive = tmp_path / "final.zip"
    export_model(
        ModelExportConfig(run=str(run.path), to="archive", ensembles_dir=tmp_path, out=archive)
    )
    with zipfile.ZipFile(archive) as file:
        card = file.read("README.md").decode()
    assert "none was left out" in card
    assert "these are of models of the same settings" in card
    shutil.move(folds.path, tmp_path / "elsewhere")
    alone = open_models([str(archive)], machine, **places).thresholds
    assert (alone.shared, alone.policy) == (opened.thresholds.shared, opened.thresholds.policy)
    assert "vouch" in alone.source

    shutil.move(tmp_path / "elsewhere", folds.path)

    # the same command again has nothing to do
    state = hash_file(files.best), files.styles.stat().st_mtime_ns
    assert train(replace(calibrated, fold=("none",)))[0].finished == "epochs"
    assert (hash_file(files.best), files.styles.stat().st_mtime_ns) == state


def test_debug_and_plan_have_names_of_their_own(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        f"train --data {tiny_config.data} --name x --runs_dir {tmp_path} --fold none --device cpu"
    )
    for more, name in (("--debug", "x-final-debug"), ("--dry_run", "x-final_batch.png")):
        with pytest.raises(SystemExit) as caught:
            cli.main([*words.split(), more])
        assert not caught.value.code
        assert name in capsys.readouterr().out
        assert (tmp_path / name).exists()


def test_a_worker_trains_the_same(tiny_config: TrainConfig) -> None:
    final = replace(tiny_config, fold=("none",))
    assert final.of_fold(0).is_final
    assert tiny_config.of_fold(1).fold == ("1",)


def test_the_policy_is_that_of_the_folds(copied: TrainConfig, tmp_path: Path) -> None:
    oof(OofConfig(run="tiny", runs_dir=copied.runs_dir, policy="image", runtime=CPU))
    train(replace(copied, fold=("none",)))
    machine = Machine(choose_device("cpu"))
    opened = open_models(["tiny-final"], machine, runs_dir=copied.runs_dir)
    assert opened.policy == "image"
    assert opened.members[0].styles is not None


def test_no_fold_starts_from_a_network_that_has_seen_all(
    copied: TrainConfig, tmp_path: Path
) -> None:
    train(replace(copied, fold=("none",)))
    start = ModelConfig(pretrained_model=str(copied.runs_dir / "tiny-final" / "fold_0" / "best.pt"))
    with pytest.raises(LeakError, match="another validation fold"):
        train(replace(copied, name="other", fold=("0",), model=start))
    short = replace(copied.optim, n_epochs=1)
    train(replace(copied, name="other", fold=("none",), model=start, optim=short))


def test_folds_that_are_not_all_trained_do_not_vouch_yet(
    copied: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = RunFolder(copied.runs_dir / "tiny")
    folds.fold(1).best.unlink()
    command = f"train --config {folds.settings('train')} --fold none --runs_dir {copied.runs_dir}"
    with pytest.raises(SystemExit) as caught:
        cli.main(command.split())
    assert not caught.value.code
    assert "are to vouch for it, and not all are trained yet" in capsys.readouterr().out


def test_advice_trains_the_final_network(
    copied: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    late = replace(copied, fold=("none",), time_budget="0.001s")
    assert not train(late)[0].finished
    run = RunFolder(copied.runs_dir / "tiny-final")
    assert "--fold none" in train_command(run, [0])
    with pytest.raises(RunError, match="--fold none"):
        open_models(["tiny-final"], Machine(choose_device("cpu")), runs_dir=copied.runs_dir)


def test_thresholds_of_replaced_folds_are_not_taken(
    calibrated: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(replace(calibrated, fold=("none",)))
    folds = RunFolder(calibrated.runs_dir / "tiny")
    shutil.copyfile(folds.fold(1).best, folds.fold(0).best)
    machine = Machine(choose_device("cpu"))
    opened = open_models(["tiny-final"], machine, runs_dir=calibrated.runs_dir)
    assert "was made with other models" in caplog.text
    assert "not calibrated" in opened.thresholds.source


def test_styles_that_a_kill_prevented_are_made_later(copied: TrainConfig) -> None:
    train(replace(copied, fold=("none",)))
    files = RunFolder(copied.runs_dir / "tiny-final").fold(0)
    files.styles.unlink()
    files.last.unlink()  # as cellflow prune does
    train(replace(copied, fold=("none",)))
    assert files.styles.is_file()


def test_a_run_from_before_a_setting_vouches(calibrated: TrainConfig) -> None:
    train(replace(calibrated, fold=("none",)))
    run = RunFolder(calibrated.runs_dir / "tiny")
    record = run.read_record()
    del record["config"]["select_metric"]
    run.write_record(record)
    found = vouching_run(RunFolder(calibrated.runs_dir / "tiny-final"))
    assert found is not None and found.name == "tiny"


def test_folds_of_other_settings_do_not_vouch(
    calibrated: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(calibrated.optim, n_epochs=calibrated.optim.n_epochs - 1)
    train(replace(calibrated, fold=("none",), optim=other))
    with caplog.at_level(logging.WARNING):
        opened = open_models(
            ["tiny-final"], Machine(choose_device("cpu")), runs_dir=calibrated.runs_dir
        )
    assert "'tiny' does not vouch for 'tiny-final'" in caplog.text
    assert "n_epochs" in caplog.text
    assert "not calibrated" in opened.thresholds.source


def test_without_folds_there_are_the_thresholds_of_the_training(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    short = replace(tiny_config.optim, n_epochs=1)
    train(replace(tiny_config, runs_dir=tmp_path, fold=("none",), optim=short))
    opened = open_models(["tiny-final"], Machine(choose_device("cpu")), runs_dir=tmp_path)
    assert "not calibrated" in opened.thresholds.source

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.io import imread, imsave

from cellflow.config import FoldsConfig, ModelConfig, PrepareConfig, TrainConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import load_member
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.training.fold_checkpoint import FoldCheckpoint
from cellflow.engine.training.train import train
from cellflow.errors import (
    CellflowError,
    CheckpointError,
    ConfigError,
    DataError,
    FoldError,
    LeakError,
    RunError,
)
from cellflow.io.dataset import Dataset
from cellflow.io.images import write_labels
from cellflow.nn.checkpoint import load_model_file, load_state
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder, find_run


def run_folder(config: TrainConfig) -> RunFolder:
    return RunFolder(config.runs_dir / config.name)


def test_what_a_training_leaves_behind(trained: TrainConfig) -> None:
    run = run_folder(trained)
    assert (run.path / "config.yaml").is_file()
    assert (run.path / "folds.csv").read_text() == (trained.data / "folds.csv").read_text()
    for fold in (0, 1):
        files = run.fold(fold)
        history = pd.read_csv(files.history)
        assert list(history["epoch"]) == [1, 2, 3]
        assert history["skipped_steps"].eq(0).all()
        assert history["waited"].lt(history["seconds"]).all()
        assert history[["train_loss", "learning_rate", "images_per_second"]].gt(0).all().all()
        # Evaluated every second epoch and at the end.
        assert list(history["val_score"].notna()) == [False, True, True]
        assert list(history["val_loss"].notna()) == [False, True, True]
        evaluations = pd.read_csv(files.evaluations)
        folds = pd.read_csv(run.folds).set_index("id")["fold"]
        assert set(evaluations["id"]) == set(folds.index[folds == fold])
        assert set(evaluations["epoch"]) == {2, 3}
        assert set(evaluations["weights"]) == {"net"}
        facts = load_model_file(files.best).facts
        scores = evaluations.groupby("epoch")["score"].mean()
        # A tie keeps the earlier epoch; a model is written even at score 0.
        assert facts["epoch"] == scores.idxmax()
        assert facts["score"] == pytest.approx(scores.max())
        assert facts["fold"] == fold
        assert "epoch 3/3" in files.log.read_text()
        summary = json.loads(files.summary.read_text())
        assert (summary["finished"], summary["epochs"]) == ("epochs", 3)
        assert summary["best_score"] == facts["score"]
        assert imread(files.plot).shape[2] >= 3


def test_weights_do_not_depend_on_validation_images(trained: TrainConfig, tmp_path: Path) -> None:
    """Other pixels and other cells in the validation images: the very same training."""
    source = tmp_path / "source"
    shutil.copytree(trained.data.parent / "source", source)
    folds = pd.read_csv(trained.data / "folds.csv").set_index("id")["fold"]
    rng = np.random.default_rng(0)
    for name in folds.index[folds == 1]:
        noise = rng.integers(0, 255, (96, 112), dtype=np.uint8)
        imsave(source / "images" / f"{name}.png", noise, check_contrast=False)
        write_labels(source / "masks" / f"{name}.tif", np.eye(96, 112, dtype=np.int32))
    data = tmp_path / "data"
    prepare(PrepareConfig(source=source, out=data, table=source / "table.csv"))
    shutil.copyfile(trained.data / "folds.csv", data / "folds.csv")
    config = replace(trained, data=data, runs_dir=tmp_path / "runs", fold=("1",))
    train(config)
    ours = load_state(run_folder(config).fold(1).last)
    theirs = load_state(run_folder(trained).fold(1).last)
    assert all(torch.equal(value, theirs["net"][name]) for name, value in ours["net"].items())
    assert [row["train_loss"] for row in ours["progress"]["history"]] == [
        row["train_loss"] for row in theirs["progress"]["history"]
    ]


def test_the_same_command_again_changes_nothing(copied: TrainConfig) -> None:
    path = run_folder(copied).fold(0).best
    before = path.stat().st_mtime_ns
    results = train(replace(copied, fold=("0",)))
    assert results[0].epochs == 3
    assert path.stat().st_mtime_ns == before


def test_other_settings_under_a_used_name_are_refused(copied: TrainConfig) -> None:
    changed = replace(copied, seed=9, optim=replace(copied.optim, n_epochs=7))
    with pytest.raises(RunError) as error:
        train(changed)
    for part in ("seed: 0 -> 9", "optim.n_epochs: 3 -> 7", "another --name"):
        assert part in str(error.value)


def test_another_split_under_a_used_name_is_refused(copied: TrainConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(copied.data, data)
    folds = pd.read_csv(data / "folds.csv")
    folds["fold"] = 1 - folds["fold"]
    folds.to_csv(data / "folds.csv", index=False)
    with pytest.raises(RunError, match=r"folds\.csv: not the split"):
        train(replace(copied, data=data))


def test_a_fold_that_does_not_exist(tiny_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"--fold 5: .*folds\.csv has the folds 0 1"):
        train(replace(tiny_config, fold=("0", "5"), runs_dir=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_not_prepared_and_wrong_flags(tiny_config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cellflow prepare"):
        train(replace(tiny_config, data=tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="--eval_every"):
        train(replace(tiny_config, eval_every=0))
    with pytest.raises(ConfigError, match="--device must be"):
        train(replace(tiny_config, runtime=replace(tiny_config.runtime, device="tpu9")))


def test_too_few_cells(tiny_config: TrainConfig, tmp_path: Path) -> None:
    sampling = replace(tiny_config.sampling, min_train_masks=1000)
    with pytest.raises(DataError, match="--min_train_masks"):
        train(replace(tiny_config, sampling=sampling, runs_dir=tmp_path, name="few"))


def test_a_lost_best_model_is_not_forgotten_in_silence(copied: TrainConfig) -> None:
    run_folder(copied).fold(0).best.unlink()
    with pytest.raises(CheckpointError, match=r"best\.pt is gone"):
        train(replace(copied, fold=("0",)))


def test_savedir_and_start_from_a_model_file(trained: TrainConfig, tmp_path: Path) -> None:
    best = run_folder(trained).fold(0).best
    config = replace(
        trained,
        runs_dir=tmp_path / "runs",
        savedir=tmp_path / "models",
        fold=("0",),
        name="fine",
        eval_every=1,
        model=ModelConfig(pretrained_model=str(best)),
        optim=replace(trained.optim, n_epochs=1, learning_rate=1e-9),
    )
    train(config)
    (tmp_path / "models" / "fine_fold_0.pt").unlink()
    train(config)  # finished; the copy is made again
    copy = tmp_path / "models" / "fine_fold_0.pt"
    assert copy.read_bytes() == run_folder(config).fold(0).best.read_bytes()
    assert load_model_file(copy).facts["run"] == "fine"
    key = "output.2.weight"
    trained_on = load_state(run_folder(config).fold(0).last)["net"][key]
    change = trained_on - load_model_file(best).net.state_dict()[key]
    assert 0 < change.abs().max() < 1e-6
    with pytest.raises(CheckpointError, match="No model file"):
        train(replace(config, name="none", model=ModelConfig(pretrained_model="cyto99")))
    with pytest.raises(ConfigError, match="--diam_mean cannot be chosen"):
        train(replace(config, model=ModelConfig(str(best), diam_mean=17.0)))


@pytest.mark.slow
def test_workers_do_not_change_the_result(trained: TrainConfig, tmp_path: Path) -> None:
    runtime = replace(trained.runtime, workers=2)
    config = replace(trained, runs_dir=tmp_path, fold=("0",), runtime=runtime)
    train(config)
    ours = load_state(run_folder(config).fold(0).last)["net"]
    theirs = load_state(run_folder(trained).fold(0).last)["net"]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
def test_a_kill_between_state_and_best_model(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optim = replace(trained.optim, optimizer="sgd", learning_rate=0.01)
    whole = replace(trained, runs_dir=tmp_path / "whole", fold=("0",), optim=optim)
    broken = replace(whole, runs_dir=tmp_path / "broken")
    train(whole)

    def die(*rest: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FoldCheckpoint, "save_best", die)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    assert not run_folder(broken).fold(0).best.exists()
    train(broken)
    ours, theirs = (load_model_file(run_folder(c).fold(0).best) for c in (broken, whole))
    assert ours.facts["epoch"] == theirs.facts["epoch"]
    for name, value in theirs.net.state_dict().items():
        assert torch.equal(value, ours.net.state_dict()[name]), name


def test_lost_tables_come_back(copied: TrainConfig) -> None:
    files = run_folder(copied).fold(0)
    before = files.history.read_text(), files.evaluations.read_text()
    files.history.unlink()
    files.evaluations.unlink()
    train(replace(copied, fold=("0",)))
    assert (files.history.read_text(), files.evaluations.read_text()) == before


def test_a_failed_start_does_not_use_up_the_name(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_config, runs_dir=tmp_path, fold=("0",))
    with pytest.raises(CellflowError):
        train(replace(config, sampling=replace(config.sampling, min_train_masks=1000)))
    assert train(replace(config, optim=replace(config.optim, n_epochs=1, schedule="constant")))


def test_two_trainers_of_one_fold(copied: TrainConfig) -> None:
    lock = run_folder(copied).fold(0).lock
    code = (
        "import sys, pathlib\n"
        "from cellflow.storage.locks import hold_lock\n"
        "with hold_lock(pathlib.Path(sys.argv[1]), 'it'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"being worked on by process {other.pid} on "):
            train(replace(copied, fold=("0",)))
        other.kill()
    # The lock ended with its process.
    assert train(replace(copied, fold=("0",)))[0].epochs == 3


def test_no_start_from_a_model_that_saw_the_validation_images(
    trained: TrainConfig, tmp_path: Path
) -> None:
    best = str(run_folder(trained).fold(0).best)
    config = replace(trained, runs_dir=tmp_path, name="leak", model=ModelConfig(best), fold=("1",))
    with pytest.raises(LeakError, match="it has seen images that fold 1 validates on"):
        train(config)
    with pytest.raises(CheckpointError, match=r"was trained with --chan 0 --chan2 0"):
        train(replace(config, model=ModelConfig(best, chan=1)))


def test_changed_images_and_labels_are_refused(
    tiny_source: Path, trained: TrainConfig, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data, ignore=shutil.ignore_patterns("cache"))
    config = replace(trained, data=data, runs_dir=tmp_path / "runs")
    name = Dataset.open(data).ids[0]
    image = data / "images" / f"{name}.png"
    original = image.read_bytes()
    imsave(image, np.zeros((96, 112), np.uint8), check_contrast=False)
    with pytest.raises(DataError, match=rf"the image '{name}' is not what"):
        train(config)
    image.write_bytes(original)
    write_labels(data / "labels" / f"{name}.tif", np.eye(96, 112, dtype=np.int32))
    with pytest.raises(DataError, match=rf"the label map of '{name}' is not what"):
        train(config)


def test_loss_falls(tiny_config: TrainConfig, tmp_path: Path) -> None:
    optim = replace(tiny_config.optim, n_epochs=12)
    config = replace(tiny_config, runs_dir=tmp_path, fold=("0",), optim=optim, eval_every=12)
    train(config)
    losses = pd.read_csv(run_folder(config).fold(0).history)["train_loss"]
    assert not math.isnan(losses.iloc[-1])
    assert np.mean(losses.iloc[-3:]) < 0.8 * np.mean(losses.iloc[:3])


def test_channels_of_rgb_images(trained: TrainConfig, tmp_path: Path) -> None:
    """Cells in green, nuclei in blue: the choice travels with the model and decides what it sees."""
    source, rng = tmp_path / "source", np.random.default_rng(0)
    (source / "images").mkdir(parents=True)
    (source / "masks").mkdir()
    old = Dataset.open(trained.data)
    for name in old.ids[:4]:
        rgb = rng.integers(0, 255, (*old.image(name).shape, 3), dtype=np.uint8)
        rgb[..., 1] = old.image(name)
        imsave(source / "images" / f"{name}.png", rgb, check_contrast=False)
        imsave(
            source / "masks" / f"{name}.png",
            old.labels(name).astype(np.uint8),
            check_contrast=False,
        )
    dataset = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    make_folds(FoldsConfig(data=dataset.path, k=2))
    config = replace(
        trained,
        data=dataset.path,
        runs_dir=tmp_path / "runs",
        name="rgb",
        fold=("0",),
        model=replace(trained.model, chan=2, chan2=3),
        optim=replace(trained.optim, n_epochs=1),
    )
    train(config)
    path = run_folder(config).fold(0).best
    assert load_model_file(path).facts["chan"] == 2
    member = load_member(path, "rgb", Machine(torch.device("cpu")))
    assert (member.chan, member.chan2) == (2, 3)
    image = dataset.image(dataset.ids[0])
    segmenter = Segmenter([member], config.mask)
    expected = segmenter.predict(image).cellprob
    red = image.copy()
    red[..., 0] = 0
    np.testing.assert_array_equal(segmenter.predict(red).cellprob, expected)
    assert not np.array_equal(segmenter.predict(image[..., ::-1]).cellprob, expected)


def test_an_evaluation_after_hardly_any_step(trained: TrainConfig, tmp_path: Path) -> None:
    """Batch-norm statistics are far off then; the output is huge, and is scored like any other."""
    config = replace(
        trained,
        runs_dir=tmp_path,
        fold=("0",),
        eval_every=1,
        sampling=replace(trained.sampling, nimg_per_epoch=4),
        optim=replace(trained.optim, schedule="constant", learning_rate=0.05, n_epochs=2),
    )
    assert train(config)[0].epochs == 2


def test_the_newest_run_is_one_that_has_a_model(copied: TrainConfig) -> None:
    empty = replace(copied, name="later", model=ModelConfig("nothing.pt"))
    with pytest.raises(CheckpointError):
        train(empty)
    assert find_run(None, copied.runs_dir).name == "tiny"


def test_a_finished_fold_whose_state_was_pruned_is_not_trained_again(
    copied: TrainConfig, tmp_path: Path
) -> None:
    before = train(copied)
    run = RunFolder(copied.runs_dir / copied.name)
    made = {fold: run.fold(fold).best.stat().st_mtime_ns for fold in (0, 1)}
    for fold in (0, 1):
        run.fold(fold).last.unlink()
    assert train(replace(copied, savedir=tmp_path / "saved")) == before
    assert {fold: run.fold(fold).best.stat().st_mtime_ns for fold in (0, 1)} == made
    assert not run.fold(0).last.exists()
    saved = tmp_path / "saved" / f"{run.name}_fold_1.pt"
    assert hash_file(saved) == hash_file(run.fold(1).best)

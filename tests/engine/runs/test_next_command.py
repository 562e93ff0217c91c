"""What commands say last is a command that runs; what is left, and what a run scores before `oof`."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cellflow.cli import run_command
from cellflow.config import CalibrateConfig, OofConfig, PrepareConfig, RunsConfig, TrainConfig
from cellflow.engine.data.folds import check_split
from cellflow.engine.data.prepare import prepare
from cellflow.engine.runs.catalog import list_runs
from cellflow.engine.runs.next_command import after_calibration, after_oof, after_training, run_word
from cellflow.engine.training.progress import seconds_left
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.errors import DataError, FoldError, RunError
from cellflow.report.text.runs import runs_text
from cellflow.storage.run_folder import RunFolder


def next_words(text: str) -> list[str]:
    """The command that is said to come next, without `cellflow`."""
    (line,) = (line for line in text.splitlines() if line.startswith("Next: cellflow "))
    return shlex.split(line.removeprefix("Next: cellflow ").partition(";")[0])


@pytest.mark.slow
def test_the_next_commands_run(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From one trained fold to thresholds by typing what is said, in a folder with a space in it."""
    settings = replace(tiny_config, runs_dir=tmp_path / "my runs", name="mine", fold=("1",))
    train(settings)
    text = after_training(settings)
    assert "cellflow oof" not in text  # that needs a model of every fold
    assert f"cellflow predict FOLDER --model '{tmp_path}/my runs/mine' --unfinished" in text
    words = next_words(after_training(settings))
    assert words[0] == "train" and words[-2:] == ["--fold", "0"]
    commands = [words[0]]
    while words[0] != "predict":
        run_command(words[0], words[1:])
        words = next_words(capsys.readouterr().out)
        commands.append(words[0])
    assert commands == ["train", "oof", "calibrate", "predict"]
    assert words[1:] == ["FOLDER", "--model", f"{tmp_path}/my runs/mine"]


def test_a_run_by_its_name_where_that_is_enough(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.runs_dir / trained.name, tmp_path / "runs" / "exp")
    here, there = RunFolder(tmp_path / "runs" / "exp"), RunFolder(tmp_path / "others" / "exp")
    assert run_word(here) == "exp"
    assert run_word(there) == str(there.path)
    assert after_oof(here, OofConfig(unfinished=True, data=Path("my data"))) == (
        "Next: cellflow calibrate exp --data 'my data' --unfinished"
    )
    assert "cellflow ensemble exp " in after_calibration([here, there])


def test_thresholds_are_for_the_metric_that_chose_the_models(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / copied.name)
    assert "--select_metric" not in after_oof(run, OofConfig())
    record = run.read_record()
    run.write_record(record | {"config": record["config"] | {"select_metric": "pq"}})
    assert after_oof(run, OofConfig(unfinished=True)).endswith(" --select_metric pq --unfinished")


@pytest.mark.parametrize(
    ("epoch", "epochs", "every", "expected"),
    [
        (0, 10, 5, 10 * 2 + 2 * 7),
        (5, 10, 5, 5 * 2 + 7),
        (9, 10, 5, 2 + 7),
        (10, 10, 5, 0),
        (1, 12, 5, 11 * 2 + 3 * 7),
        (11, 12, 5, 2 + 7),
        (1, 3, 50, 2 * 2 + 7),
    ],
)
def test_time_that_is_left_counts_evaluations(
    epoch: int, epochs: int, every: int, expected: float
) -> None:
    found = seconds_left(epoch, epochs, eval_every=every, epoch_seconds=2, evaluation_seconds=7)
    assert found == expected


def test_runs_show_the_best_validation_score_before_oof(copied: TrainConfig) -> None:
    (row,) = list_runs(RunsConfig(runs_dir=copied.runs_dir)).to_dict("records")
    assert row["folds_scored"] == 2 and 0 <= row["best_val"] <= 1
    shown = runs_text(list_runs(RunsConfig(runs_dir=copied.runs_dir)))
    assert f"{row['best_val']:.4f} (2 of 2 folds)" in shown and "best val" in shown
    shutil.rmtree(copied.runs_dir / "tiny" / "fold_0")
    assert "(1 of 2 folds)" in runs_text(list_runs(RunsConfig(runs_dir=copied.runs_dir)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--data", "raw"], "Type: cellflow prepare raw; then"),
        (["train", "--data", "raw", "--dry_run"], "Type: cellflow prepare raw; then"),
        (["train", "--data", "raw", "--debug"], "Type: cellflow prepare raw; then"),
        (["folds", "--data", "raw"], "Type: cellflow prepare raw; then"),
        (["run", "--data", "raw"], "Type: cellflow prepare raw; then"),
        (["folds", "--data", "parent"], "Say --data parent/data"),
        (["train", "--data", "dta"], "There is: data."),
        (["oof", "tinny", "--runs_dir", "runs"], "Did you mean tiny?"),
        (["calibrate", "runs/tinyy"], "Did you mean tiny?"),
        (["train", "--data", "data", "--fold", "7"], "data/folds.csv has the folds 0 1"),
        (["train", "--data", "data", "--fold", "7", "--debug"], "folds.csv has the folds 0 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there(
    words: list[str],
    said: str,
    tiny_source: Path,
    tiny_data: Path,
    copied: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(copied.runs_dir.parent)
    Path("parent").mkdir()
    Path("raw").symlink_to(tiny_source)
    Path("data").symlink_to(tiny_data)
    Path("parent/data").symlink_to(tiny_data)
    with pytest.raises(SystemExit) as stop:
        run_command(words[0], words[1:])
    assert stop.value.code == 1
    assert said in capsys.readouterr().err


def test_best_models_so_far_where_every_fold_has_one(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / copied.name)
    summary = json.loads(run.fold(1).summary.read_text())
    run.fold(1).summary.write_text(json.dumps(summary | {"finished": ""}))
    text = after_training(copied)
    assert "--fold 1; " in text and f"cellflow oof {run.path} --unfinished" in text


def test_a_run_elsewhere_is_named_by_its_folder(copied: TrainConfig) -> None:
    """The command that a refusal names runs from where one is, blanks in the path or not."""
    elsewhere = copied.runs_dir.parent / "my runs"
    copied.runs_dir.rename(elsewhere)
    run = RunFolder(elsewhere / copied.name)
    with pytest.raises(RunError, match="no out-of-fold flows") as caught:
        calibrate(CalibrateConfig(runs=(str(run.path),)))
    words = shlex.split(str(caught.value).partition("Make them: cellflow ")[2])
    assert words == ["oof", str(run.path)]


def test_folders_with_blanks_are_quoted(
    tiny_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tmp_path / "my data")
    table = str(tiny_source / "table.csv")
    run_command("prepare", [str(tiny_source), "--out", data, "--table", table])
    words = next_words(capsys.readouterr().out)
    assert words[0] == "folds" and words[-2:] == ["--data", data]
    run_command("folds", words[1:])
    words = next_words(capsys.readouterr().out)
    assert words == ["train", "--fold", "all", "--data", data]
    with pytest.raises(FoldError) as split:
        check_split(Path(data), k=7, group=None, calibration=None)
    assert f"cellflow folds --data '{data}' --k 7 --overwrite" in str(split.value)
    with pytest.raises(DataError) as source:
        prepare(PrepareConfig(source=Path(data), out=tmp_path / "again"))
    assert f"cellflow folds --data '{data}'" in str(source.value)

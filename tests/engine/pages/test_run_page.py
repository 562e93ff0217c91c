"""The page of a run at every moment: what it says, what it survives, and that its commands run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from cellflow import ReportConfig, write_report
from cellflow.cli import COMMANDS, run_command
from cellflow.cli.parsing import parse
from cellflow.config import (
    CalibrateConfig,
    EnsembleConfig,
    FoldsConfig,
    GridConfig,
    OofConfig,
    OutputConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.config.recipes import CELLPOSE, filled
from cellflow.engine.pages import run_hints
from cellflow.engine.pages.run_commands import _data_commands
from cellflow.engine.pages.run_page import gather_run
from cellflow.engine.pages.run_thresholds import swing
from cellflow.engine.pages.watch_run import watch_run
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.errors import ConfigError, RunError
from cellflow.report.pages.run_facts import FoldFacts, RunFacts
from cellflow.storage.locks import hold_lock
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
GRID = GridConfig(
    start_threshold=-2.0, threshold_step=2.0, n_thresholds=3, flow_thresholds=(0.4, 0.0),
    min_sizes=(15, 60), extras=False,
)  # fmt: skip


def folder(config: TrainConfig) -> RunFolder:
    return RunFolder(config.runs_dir / config.name)


def texts(facts: RunFacts) -> str:
    return "\n".join(text for _, text in facts.hints)


def test_a_run_before_its_first_epoch(copied: TrainConfig) -> None:
    run = folder(copied)
    for fold in run.fold_folders():
        shutil.rmtree(fold.path)
    path = write_report(
        ReportConfig(runs_dir=copied.runs_dir)
    )  # the newest, which has saved nothing
    assert path == run.report and "0 of 2" in path.read_text("utf-8")
    facts = gather_run(run)
    assert [item.state for item in facts.folds] == ["not begun", "not begun"]
    assert facts.problems == () and facts.use == [] and "Not trained to the end" in texts(facts)


def test_a_run_half_trained(copied: TrainConfig) -> None:
    run = folder(copied)
    run.fold(0).summary.unlink()
    for path in run.fold(1).path.iterdir():
        path.unlink()
    facts = gather_run(run)
    assert facts.status == "training stopped, 0 of 2 folds finished"
    assert [(item.state, item.epochs) for item in facts.folds] == [
        ("stopped", 3),
        ("not begun", None),
    ]
    assert [label for label, *_ in facts.tiles] == ["Folds trained", "Fold 0"]
    assert facts.use[0][1].endswith(" --unfinished")
    with hold_lock(run.fold(0).lock, "fold 0"):
        assert gather_run(run).status == "in training, 0 of 2 folds finished"
    page = write_report(ReportConfig((str(run.path),))).read_text("utf-8")
    assert 'id="loss"' in page and 'id="thresholds"' not in page and "data-refresh=" not in page


def test_numbers_are_those_of_the_files(predicted: TrainConfig) -> None:
    run = folder(predicted)
    facts = gather_run(run)
    overall = pd.read_csv(run.cv).set_index("scope").loc["overall"]
    tiles = {label: (value, note) for label, value, note, _ in facts.tiles}
    assert tiles["Best epoch"][0] == f"{overall['best_epoch']:.3f}"
    assert tiles["Last epoch"][0] == f"{overall['last_epoch']:.3f}"
    assert tiles["Expected on new images"] == (
        f"{overall['expected']:.3f}", f"{overall['low']:.3f} to {overall['high']:.3f}",
    )  # fmt: skip
    assert tiles["Fitted thresholds"] == ("–", "cellflow calibrate")
    assert facts.confusion is not None and next(iter(facts.confusion)) == "true"
    assert [row["fold"] for row in facts.time] == ["0", "1", "all"]
    history = pd.read_csv(run.fold(0).history)
    assert facts.time[0]["seconds"] == pytest.approx(history["seconds"].sum())
    changed = {row["name"]: row["value"] for row in facts.changed}
    assert changed["optim.n_epochs"] == "3" and "mask.min_size" not in changed
    assert "Thresholds are those of the training" in texts(facts)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fold_0/history.csv", "epoch,seconds\n1,much\n"),
        ("fold_1/evaluations.csv", "\x00\x01"),
        ("oof/scores.csv", "id,fold\na,0\n"),
        ("oof/cell_types.csv", 'true,a\n"b'),
        ("cv.csv", "scope\n"),
        ("thresholds.json", "{"),
        ("metadata.json", "[]"),
        ("environment.json", "nonsense"),
        ("config.yaml", "{}"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_shown(
    predicted: TrainConfig, name: str, content: str
) -> None:
    run = folder(predicted)
    (run.path / name).write_text(content)
    page = write_report(ReportConfig((str(run.path),)))
    facts = gather_run(run)
    assert any(name in problem for problem in facts.problems), facts.problems
    assert name in page.read_text("utf-8")
    assert len(facts.folds) == 2  # the other files still tell


def test_odd_thresholds_are_no_end(predicted: TrainConfig) -> None:
    """Of an older calibration, and of one that somebody has edited."""
    run = folder(predicted)
    mask = {"cellprob_threshold": 0.5, "flow_threshold": 0, "min_size": 20}
    facts = {
        "schema": "cellflow-thresholds", "version": 1, "source": "somewhere", "members": [],
        "policy": "dataset", "diameter": None, "shared": mask, "per_type": {"round": mask},
        "curves": {"all types": {"min_size": [[15, 0.5], [20, None]], "flow_threshold": [[0.4, 0.5], [0, 0.6]]}},
        "folds": {"0": {"shared": {"min_size": "x"}}, "1": 3}, "scores": {"all types": []},
    }  # fmt: skip
    run.thresholds.write_text(json.dumps(facts))
    found = gather_run(run).thresholds
    assert found is not None and list(found.curves["all types"]) == ["flow_threshold"]
    page = write_report(ReportConfig((str(run.path),))).read_text("utf-8")
    assert "This calibration kept no curves of single folds" in page
    assert 'id="by-type-flow-threshold"' in page


def test_oof_calibrate_and_ensemble_leave_the_page(predicted: TrainConfig, tmp_path: Path) -> None:
    run = folder(predicted)
    made = oof(OofConfig(str(run.path), policy="dataset", runtime=CPU))
    assert made.report == run.report and run.report.is_file()
    assert "cellflow calibrate" in run.report.read_text("utf-8")
    ensembles = tmp_path / "elsewhere"
    fitted = calibrate(
        CalibrateConfig((str(run.path),), ensembles_dir=ensembles, grid=GRID, runtime=CPU)
    )
    assert fitted.reports == (run.report,)
    stored = json.loads(run.thresholds.read_text())
    assert list(stored["fold_curves"]) == ["0", "1"]
    sizes = pd.read_csv(run.scores)["fold"].value_counts()
    for axis, line in stored["curves"][
        "all types"
    ].items():  # means over images, so that folds add up
        parts = [stored["fold_curves"][str(fold)][axis] for fold in (0, 1)]
        for place, (value, score) in enumerate(line):
            assert {part[place][0] for part in parts} == {value}
            mean = (
                sum(part[place][1] * sizes[fold] for fold, part in enumerate(parts)) / sizes.sum()
            )
            assert mean == pytest.approx(score, abs=2e-5)
    page = run.report.read_text("utf-8")
    assert 'id="by-fold-cellprob-threshold"' in page and 'id="by-type-min-size"' in page
    config = EnsembleConfig(
        images=(predicted.data / "images",), runs=(str(run.path),), ensembles_dir=ensembles,
        output=OutputConfig(out=tmp_path / "results", name="seen"), runtime=CPU,
    )  # fmt: skip
    result = ensemble(config)
    assert [path.resolve() for path in result.reports] == [run.report.resolve()]
    page = run.report.read_text("utf-8")
    assert "Predictions made with models of this run" in page and ">seen<" in page


def test_a_page_that_cannot_be_written_fails_no_command(
    predicted: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run = folder(predicted)
    run.report.unlink(missing_ok=True)
    run.report.mkdir()
    (run.report / "file").touch()
    made = oof(OofConfig(str(run.path), policy="dataset", runtime=CPU))
    assert made.report is None and len(made.scores) == 6
    assert "report.html could not be written" in caplog.text


def test_models_that_are_newer_than_the_predictions(predicted: TrainConfig) -> None:
    run = folder(predicted)
    shutil.copyfile(run.fold(1).best, run.fold(0).best)
    assert "not of the models that are there now" in texts(gather_run(run))


def test_the_page_follows_a_training(copied: TrainConfig) -> None:
    run = folder(copied)
    summary = run.fold(0).summary.read_text()
    run.fold(0).summary.unlink()
    written: list[float | None] = []
    config = ReportConfig((str(run.path),), out=run.path / "live.html")

    def write(refresh: float | None) -> Path:
        written.append(refresh)
        return write_report(config)

    with hold_lock(run.fold(0).lock, "fold 0"):
        thread = threading.Thread(target=watch_run, args=(run, write, 0.05))
        thread.start()
        wait_for(lambda: len(written) == 1)
        time.sleep(0.3)
        assert len(written) == 1  # nothing has changed
        history = pd.read_csv(run.fold(0).history)
        pd.concat([history, history.tail(1)]).to_csv(run.fold(0).history, index=False)
        wait_for(lambda: len(written) > 1)
    run.fold(0).summary.write_text(summary)
    thread.join(60)
    assert not thread.is_alive()
    assert written[-1] is None and set(written[:-1]) == {0.05}


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_watching_ends_where_nobody_trains(copied: TrainConfig) -> None:
    run = folder(copied)
    run.fold(0).summary.unlink()
    config = ReportConfig((str(run.path),), watch=True, interval=0.02)
    page = write_report(config)
    assert "data-refresh=" not in page.read_text("utf-8")


def test_ctrl_c_ends_watching_and_leaves_the_page(copied: TrainConfig) -> None:
    run = folder(copied)
    run.fold(0).summary.unlink()
    config = ReportConfig((str(run.path),), watch=True, interval=0.05)
    with hold_lock(run.fold(0).lock, "fold 0"):
        run.report.unlink(missing_ok=True)
        threading.Thread(target=interrupt_when_written, args=(run.report,)).start()
        page = write_report(config)
    assert "data-refresh=" not in page.read_text("utf-8")


def test_a_run_that_is_not_there_yet_is_waited_for(copied: TrainConfig, caplog) -> None:
    run = folder(copied)
    later = run.path.rename(run.path.with_name("later"))
    config = ReportConfig((run.name,), runs_dir=copied.runs_dir, watch=True, interval=0.02)

    def begin() -> None:
        wait_for(lambda: "waited for" in caplog.text)
        later.rename(run.path)

    thread = threading.Thread(target=begin)
    thread.start()
    assert write_report(config) == run.report
    thread.join(60)
    assert caplog.text.count("No run 'tiny'") == 1


def interrupt_when_written(page: Path) -> None:
    wait_for(page.is_file)
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_asked_for_wrongly(copied: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"--out must end in \.html, found 'page\.txt'"):
        write_report(ReportConfig(out=Path("page.txt")))
    with pytest.raises(RunError, match="No run 'nope'"):
        write_report(ReportConfig(("nope",), runs_dir=copied.runs_dir))


def commands_of(run: RunFolder) -> list[list[str]]:
    facts = gather_run(run)
    lines = [text for _, text in [*facts.again, *facts.use] if text.startswith("cellflow ")]
    return [shlex.split(line)[1:] for line in lines]


def test_commands_of_the_page_are_understood(
    predicted: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = commands_of(folder(predicted))
    assert [words[0] for words in commands] == ["prepare", "folds", "train", "oof", "predict"]
    parsed = {w[0]: parse(w[0], w[1:], config=COMMANDS[w[0]].config) for w in commands}
    assert parsed["train"].name == "tiny-again" and parsed["train"].fold == ("all",)
    assert (
        parsed["train"].optim == filled(predicted, CELLPOSE).optim
        and parsed["train"].data == predicted.data
    )
    assert Path(parsed["oof"].run).name == "tiny-again" and parsed["oof"].policy == "dataset"
    assert parsed["predict"].model == str(folder(predicted).path.resolve())


def test_the_dataset_of_the_page_is_found_from_any_folder(tmp_path: Path) -> None:
    """Its settings hold its folder as it was typed."""
    (tmp_path / "folds.yaml").write_text("command: folds\ndata: cellflow-data\n")
    ((_, line),) = _data_commands(tmp_path)
    words = shlex.split(line)[1:]
    assert parse(words[0], words[1:], config=FoldsConfig).data == tmp_path


@pytest.mark.slow
def test_commands_of_the_page_run(
    predicted: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another folder, as they are copied: the run is made again with the same scores, and predicts."""
    run = folder(predicted)
    settings = CalibrateConfig(
        (str(run.path),), grid=GRID, ensembles_dir=tmp_path / "ensembles", runtime=CPU
    )
    calibrate(settings)
    place = tmp_path / "some where"
    shutil.copytree(predicted.data / "images", place / "FOLDER")
    monkeypatch.chdir(place)
    commands = commands_of(run)
    assert [words[0] for words in commands[2:]] == ["train", "oof", "calibrate", "predict"]
    for words in commands[2:]:  # the dataset is there, and stays
        run_command(words[0], words[1:])
    again = RunFolder(run.path.parent / "tiny-again")
    pd.testing.assert_frame_equal(pd.read_csv(run.cv), pd.read_csv(again.cv))
    assert len(list((place / "predictions" / "tiny" / "masks").iterdir())) == 6
    python = next(text for what, text in gather_run(run).use if "Python" in what)
    scope = {"image": next((place / "FOLDER").iterdir())}
    exec(python, scope)
    assert scope["labels"].ndim == 2


def swings(values: dict[str, float], name: str = "cellprob_threshold") -> dict:
    grid = [-1.0, -0.5, 0.0, 0.5, 1.0]
    curve = [[value, 0.5 - 0.1 * value**2] for value in grid]
    return swing(name, {fold: {name: value} for fold, value in values.items()}, curve)


def test_a_threshold_that_swings() -> None:
    found = swings({"0": -1.0, "1": 0.5, "2": 0.0})
    assert found["steps"] == 3 and found["swings"]
    assert found["costs"] == pytest.approx(0.1)
    assert not swings({"0": 0.5, "1": -0.5})["swings"]
    assert swings({"0": 0.5}) == {} and swing("min_size", {"0": {}, "1": {}}, [[1.0, 0.5]]) == {}
    curve = [[0.4, 0.5], [1.0, 0.5], [1.7, 0.5], [0.0, 0.4]]
    folds = {"0": {"flow_threshold": 0.4}, "1": {"flow_threshold": 0.0}}
    assert (
        swing("flow_threshold", folds, curve)["steps"] == 3
    )  # no check lies beyond all thresholds


def course(scores: list[float], losses: list[float], ended: str = "epochs") -> list[str]:
    history = pd.DataFrame(
        {"epoch": range(1, len(scores) + 1), "val_score": scores, "val_loss": losses}
    )
    fold = FoldFacts(0, "finished", history, pd.DataFrame(), 1, max(scores), len(scores), ended)
    return [f"{kind}: {text}" for kind, text in run_hints._of_the_course(fold)]


def test_overfitting_is_told() -> None:
    (text,) = course([0.5, 0.6, 0.55], [1.0, 0.8, 1.1])
    assert text.startswith("warning: Fold 0 overfits: its score fell by 0.050")
    assert course([0.5, 0.6, 0.59], [1.0, 0.8, 1.1]) == []
    assert course([0.5, 0.6, 0.55], [1.0, 0.8, 0.7]) == []
    (text,) = course([0.5, 0.6, 0.65], [1.0, 0.8, 0.7])
    assert text.startswith("note: Fold 0 was best at its last evaluation")
    assert course([0.5, 0.6, 0.65], [1.0, 0.8, 0.7], ended="") == []


def test_a_fold_far_below_the_others_is_told() -> None:
    rows = pd.DataFrame(
        {
            "scope": "fold", "name": ["0", "1", "2"], "images": [10, 10, 20], "groups": 10,
            "best_epoch": [0.7, 0.5, 0.7], "expected": [0.7, 0.5, 0.7], "high": [0.8, 0.6, 0.8],
            "selection_bias": 0.0,
        }
    )  # fmt: skip
    ((kind, text),) = run_hints._of_the_scores(rows)
    assert kind == "warning" and text.startswith("Fold 1 scores 0.200 below the others")
    ((kind, _),) = run_hints._of_the_scores(rows.assign(high=0.9))
    assert kind == "note"
    assert list(run_hints._of_the_scores(rows.assign(expected=[0.7, 0.66, 0.7]))) == []

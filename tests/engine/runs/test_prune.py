from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellflow.config import OofConfig, OutputConfig, PredictConfig, RuntimeConfig, TrainConfig
from cellflow.config.catalog import PruneConfig
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.runs.prune import PrunePlan, Redundant, plan_prune, prune
from cellflow.engine.validation.oof import oof
from cellflow.errors import ConfigError, RunError
from cellflow.report.text.prune import prune_text
from cellflow.storage.atomic import atomic_folder, atomic_path
from cellflow.storage.hashing import hash_file
from cellflow.storage.locks import hold_lock
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
SAMPLE = "0123456789abcdef" * 2
TABLES = (
    "config.yaml", "folds.csv", "folds.json", "cv.csv", "thresholds.json", "metadata.json", "report.html",
    "oof/oof.json", "oof/scores.csv", "oof/predictions.csv", "oof/masks/a.tif", "calibration/scores.csv",
)  # fmt: skip
FOLD = ("best.pt", "history.csv", "evaluations.csv", "summary.json", "styles.json", "log.txt")


class Place:
    """A folder with runs, data, results and calibrations, all of it made up and small."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.runs, self.data = self.path / "runs", self.path / "data"
        self.predictions, self.ensembles = self.path / "predictions", self.path / "ensembles"
        for name in ("images/a.png", "dataset.json", f"cache/{SAMPLE}.npy", "cache/notes.txt"):
            self.write(self.data / name)
        self.write(self.predictions / "exp" / "cells.csv")
        self.write(self.ensembles / "exp" / "ensemble.json")

    def write(self, path: Path, text: str = "content") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, name: str, *, data: Path | None = None, debug: bool = False) -> RunFolder:
        """A complete run of two folds."""
        run = RunFolder(self.runs / name)
        for table in TABLES:
            self.write(run.path / table)
        self.write(run.flows / "a" / "c" / "0", "flow" * 100)
        for fold in (run.fold(0), run.fold(1)):
            for file in FOLD:
                self.write(fold.path / file)
            with zipfile.ZipFile(fold.best, "w") as file:
                file.writestr("model", "weights")
            self.write(fold.last, "state" * 100)
            self.write(fold.summary, json.dumps({"finished": "epochs", "best_epoch": 1}))
        config = {"debug": debug}
        record = {"data": str(data or self.data), "data_hash": "d", "folds_hash": "f"}
        run.write_record({**record, "folds": [0, 1], "config": config})
        return run

    def plan(self, *names: str, **options: Any) -> PrunePlan:
        folders = {"ensembles_dir": self.ensembles, "predictions_dir": self.predictions}
        return plan_prune(PruneConfig(names, runs_dir=self.runs, **folders, **options))

    def paths(self, plan: PrunePlan) -> set[str]:
        return {item.path.relative_to(self.path).as_posix() for item in plan.items}

    def files(self) -> set[str]:
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix() for path in found}


STATES = {"runs/exp/fold_0/last.pt", "runs/exp/fold_1/last.pt"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


def old(path: Path) -> Path:
    """As if nothing had touched it for a day."""
    for item in [*path.rglob("*"), path]:
        os.utime(item, (item.stat().st_mtime - 86400,) * 2)
    return path


def test_a_plan_changes_nothing_and_says_what_and_why(place: Place) -> None:
    run = place.run("exp")
    before = place.files()
    plan = place.plan()
    assert place.files() == before
    assert place.paths(plan) == STATES | {"data/cache"}
    sizes = {item.path.name: item.bytes for item in plan.items}
    assert sizes == {"last.pt": 500, "cache": len("content")}
    assert plan.bytes == 1000 + len("content")
    text = prune_text(plan.items, plan.kept)
    assert str(run.fold(0).last) in text and "500 B" in text and "training state" in text


def test_what_was_shown_is_removed_and_nothing_else(place: Place) -> None:
    place.run("exp")
    before, plan = place.files(), place.plan()
    result = prune(plan)
    gone = before - place.files() - {"runs/exp/fold_0/.lock"}
    assert gone == STATES | {f"data/cache/{SAMPLE}.npy"}
    assert result.removed == plan.items and result.kept == () and result.bytes == plan.bytes
    assert not place.plan().items


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, STATES | {"data/cache"}),
        ({"states": False}, {"data/cache"}),
        ({"caches": False}, STATES),
        ({"flows": True, "caches": False}, STATES | {"runs/exp/oof/flows.zarr"}),
        ({"debug_runs": True}, STATES | {"data/cache"}),
    ],
)
def test_options(place: Place, options: dict[str, bool], expected: set[str]) -> None:
    place.run("exp")
    assert place.paths(place.plan(**options)) == expected


def test_good_states_go_with_the_last(place: Place) -> None:
    place.write(place.run("exp").fold(1).good)
    assert "runs/exp/fold_1/good.pt" in place.paths(place.plan())


def test_debug_runs_go_whole_and_only_when_asked(place: Place) -> None:
    place.run("exp")
    place.run("trial", debug=True)
    assert "runs/trial" not in place.paths(place.plan())
    trial = place.run("own data", data=place.runs / "own data" / "data", debug=True)
    place.write(trial.path / "data" / "dataset.json")
    place.write(trial.path / "data" / "cache" / f"{SAMPLE}.npy")
    plan = place.plan(debug_runs=True)
    assert place.paths(plan) == STATES | {"runs/trial", "runs/own data", "data/cache"}
    assert prune(plan).kept == ()
    assert not (place.runs / "trial").exists() and (place.runs / "exp/fold_0/best.pt").exists()


def test_unfinished_and_damaged_runs_are_left_alone(place: Place) -> None:
    place.write(place.run("half").fold(1).summary, "{}")
    place.run("debug", debug=True).fold(0).summary.unlink()
    place.run("lost").fold(0).best.unlink()
    place.write(place.run("record").record_path, "[")
    before = place.files()
    plan = place.plan(flows=True, debug_runs=True)
    assert not plan.items
    kept = "\n".join(plan.kept)
    for part in (
        "half is left alone: fold 1 is not trained to its end",
        "debug is left alone: fold 0 is not",
        "lost is left alone: fold 0: trained, but best.pt is gone",
        f"record is left alone: {place.runs}/record/config.yaml cannot be read",
    ):
        assert part in kept
    prune(plan)
    assert place.files() == before


def test_a_model_that_is_no_model_keeps_its_state(place: Place) -> None:
    place.write(place.run("exp").fold(0).best, "truncated")
    assert place.paths(place.plan(caches=False)) == {"runs/exp/fold_1/last.pt"}


def test_a_run_that_is_being_trained(place: Place) -> None:
    run = place.run("exp")
    plan = place.plan()
    with hold_lock(run.fold(1).lock, "fold 1"):
        assert not place.plan().items and "it is being trained" in place.plan().kept[0]
        result = prune(plan)  # planned before the training began
    assert run.fold(0).last.exists() and run.fold(1).last.exists()
    assert "exp is left alone: fold_1 is being worked on by process" in result.kept[0]


def test_a_run_that_goes_on_after_the_plan(place: Place) -> None:
    run = place.run("exp")
    plan = place.plan(caches=False)
    place.write(run.fold(0).summary, "{}")
    assert "not trained to its end any more" in prune(plan).kept[0]
    assert run.fold(1).last.exists()


def test_caches_stay_while_a_run_trains_on_the_data(place: Place) -> None:
    place.run("exp")
    half = place.run("half", data=place.data / ".." / "data")
    place.write(half.fold(0).summary, "{}")
    assert place.paths(place.plan("exp")) == STATES
    place.write(half.record_path, "[")  # what it trains on is not known
    plan = place.plan("exp")
    assert place.paths(plan) == STATES and "cached samples are left alone" in plan.kept[0]
    shutil.rmtree(half.path)
    place.run("other", data=place.path / "elsewhere").fold(0).summary.unlink()
    assert place.paths(place.plan("exp")) == STATES | {"data/cache"}


def test_only_samples_leave_a_cache(place: Place) -> None:
    place.run("exp")
    prune(place.plan())
    assert [path.name for path in (place.data / "cache").iterdir()] == ["notes.txt"]
    (place.data / "cache" / "notes.txt").unlink()
    place.write(place.data / "cache" / f"{SAMPLE}.npy")
    prune(place.plan())
    assert not (place.data / "cache").exists()
    place.write(place.data / "cache" / f"{SAMPLE}.npy")
    (place.data / "dataset.json").unlink()  # a record may name any folder
    assert not place.plan().items


def test_leftovers_of_killed_writes(place: Place) -> None:
    run = place.run("exp")
    options = {"states": False, "caches": False}
    files, folders = [], []
    for folder in (run.path, run.fold(0).path, place.predictions / "exp", place.ensembles / "exp"):
        with pytest.raises(KeyboardInterrupt), atomic_path(folder / "table.csv") as temporary:
            files.append(temporary.name)
            raise KeyboardInterrupt
        files[-1] = str(place.write(folder / files[-1]))
    with pytest.raises(KeyboardInterrupt), atomic_folder(run.oof, replace=True) as temporary:
        folders.append(temporary.name)
        raise KeyboardInterrupt
    place.write(run.path / folders[0] / "flows.zarr" / "a" / "c")
    assert not place.plan(**options).items  # something may still be writing
    for path in files:
        old(Path(path))
    old(run.path / folders[0])
    plan = place.plan(**options)
    expected = {*files, str(run.path / folders[0])}
    assert {str(item.path) for item in plan.items} == expected
    before = place.files()
    prune(plan)
    gone = {str(place.path / name) for name in before - place.files()}
    assert gone == {*files, str(run.path / folders[0] / "flows.zarr" / "a" / "c")}


def test_a_replacement_killed_between_its_renames_is_kept(place: Place) -> None:
    run = place.run("exp")
    kept = run.path / ".oof.0123abcd.old"
    run.oof.rename(kept)
    place.write(run.path / ".oof.0123abce.tmp" / "scores.csv")
    old(kept), old(run.path / ".oof.0123abce.tmp")
    assert place.paths(place.plan()) == STATES | {"data/cache"}
    place.write(run.scores)
    found = place.paths(place.plan())
    assert {"runs/exp/.oof.0123abcd.old", "runs/exp/.oof.0123abce.tmp"} <= found


def test_results_that_are_being_written(place: Place) -> None:
    left = old(place.write(place.predictions / "exp" / ".0123abcd.tmp.csv"))
    with hold_lock(place.predictions / "exp" / ".lock", "exp"):
        assert not place.plan().items
    assert place.paths(place.plan()) == {left.relative_to(place.path).as_posix()}


def test_links_are_not_followed(place: Place, tmp_path: Path) -> None:
    outside = Place(tmp_path / "outside")
    away = outside.run("away")
    run = place.run("exp")
    place.run("linked", data=place.path / "linked")
    run.fold(1).last.unlink()
    run.fold(1).last.symlink_to(away.fold(1).last)
    shutil.rmtree(run.flows)
    run.flows.symlink_to(away.flows)
    shutil.rmtree(place.data / "cache")
    (place.data / "cache").symlink_to(outside.data / "cache")
    (place.runs / "link").symlink_to(away.path)
    (run.path / ".0123abcd.tmp.csv").symlink_to(away.scores)
    (run.path / "deep").symlink_to(away.path)
    old(away.path)
    shutil.rmtree(place.runs / "linked" / "fold_0")
    (place.runs / "linked" / "fold_0").symlink_to(away.fold(0).path)
    before = outside.files()
    plan = place.plan(flows=True, debug_runs=True)
    expected = {"fold_1/last.pt", "oof/flows.zarr"}
    expected = {f"runs/linked/{name}" for name in expected}
    assert place.paths(plan) == {"runs/exp/fold_0/last.pt"} | expected
    assert any("link is left alone: it is a link" in text for text in plan.kept)
    prune(plan)
    assert outside.files() - {"runs/away/fold_0/.lock"} == before


def test_a_link_that_comes_after_the_plan(place: Place, tmp_path: Path) -> None:
    run, outside = place.run("exp"), Place(tmp_path / "outside").run("away")
    plan = place.plan(caches=False)
    shutil.rmtree(run.fold(0).path)
    run.fold(0).path.symlink_to(outside.fold(0).path)
    assert "is no state in" in prune(plan).kept[0]
    assert outside.fold(0).last.exists()


@pytest.mark.parametrize("kind", ["leftover", "state", "flows", "cache"])
@pytest.mark.parametrize("name", ["fold_0/best.pt", "thresholds.json", "oof/scores.csv", "fold_0"])
def test_no_plan_of_whatever_origin_takes_models_or_tables(
    place: Place, kind: Any, name: str
) -> None:
    run = place.run("exp")
    before = place.files()
    for root in (run.path, place.path, place.data):
        item = Redundant(run.path / name, 1, "", kind, root)
        result = prune(PrunePlan((item,), ()))
        assert not result.removed and "is left alone" in result.kept[0]
    assert place.files() == before


def test_what_cannot_be_removed_is_said(place: Place) -> None:
    run = place.run("exp")
    plan = place.plan(caches=False)
    run.fold(0).last.unlink()
    run.fold(0).last.mkdir()
    assert not run.fold(0).last.is_file()
    shutil.rmtree(run.path)
    result = prune(plan)
    assert not result.removed and len(result.kept) == 1


def test_named_runs(place: Place) -> None:
    place.run("exp")
    other = place.run("other")
    expected = {name.replace("exp", "other") for name in STATES}
    assert place.paths(place.plan("other", caches=False)) == expected
    assert place.paths(place.plan(str(other.path), caches=False)) == expected
    with pytest.raises(RunError, match="No run 'third'"):
        place.plan("third")
    with pytest.raises(ConfigError, match="a run is named twice: exp exp"):
        place.plan("exp", "exp")


def test_nothing_anywhere(tmp_path: Path) -> None:
    config = PruneConfig(
        runs_dir=tmp_path / "a", ensembles_dir=tmp_path / "b", predictions_dir=tmp_path / "c"
    )
    assert plan_prune(config) == PrunePlan((), ())
    assert prune_text((), ()).strip() == "0 B  in all"


KINDS = ("complete", "unfinished", "locked", "debug", "lost")


def make(place: Place, name: str, kind: str) -> tuple[RunFolder, Path | None]:
    run = place.run(name, debug=kind == "debug")
    if kind == "unfinished":
        run.fold(1).summary.unlink()
    if kind == "lost":
        run.fold(0).best.unlink()
    for folder in (run.path, run.oof, run.fold(0).path):
        old(place.write(folder / ".0123abcd.tmp.csv"))
    return run, run.fold(1).lock if kind == "locked" else None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    named=st.booleans(),
    options=st.fixed_dictionaries(
        {name: st.booleans() for name in ("states", "caches", "flows", "debug_runs", "yes")}
    ),
)
def test_whatever_the_flags_models_and_tables_stay(
    kinds: list[str], named: bool, options: dict[str, bool]
) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Place(Path(folder))
        runs = {f"run{i}": make(place, f"run{i}", kind) for i, kind in enumerate(kinds)}
        for _, lock in runs.values():
            if lock is not None:
                stack.enter_context(hold_lock(lock, "fold"))
        before = {name: hash_file(place.path / name) for name in place.files()}
        plan = place.plan(*(["run0"] if named else []), **options)
        prune(plan)
        after = {name: hash_file(place.path / name) for name in place.files()}
        wanted = {f"{fold}/{file}" for fold in ("fold_0", "fold_1") for file in FOLD} | set(TABLES)
        for i, kind in enumerate(kinds):
            own = {f"runs/run{i}/{name}" for name in wanted} & before.keys()
            if kind in ("unfinished", "locked", "lost"):  # all of it
                own = {name for name in before if name.startswith(f"runs/run{i}/")}
                own = {name for name in own if not name.endswith(".lock")}
            if kind == "debug" and options["debug_runs"] and not (named and i):
                assert not any(name.startswith(f"runs/run{i}/") for name in after)
                continue
            assert {name: after.get(name) for name in own} == {name: before[name] for name in own}
        rest = {name for name in before if not name.startswith(("runs/", "data/cache/"))}
        assert rest <= after.keys()


@pytest.fixture
def real(copied: TrainConfig, tmp_path: Path) -> Iterator[RunFolder]:
    """A trained and predicted run on data of its own."""
    data = Path(shutil.copytree(copied.data, tmp_path / "data"))
    run = RunFolder(copied.runs_dir / copied.name)
    record = run.read_record()
    run.write_record(record | {"data": str(data)})
    oof(OofConfig(run=str(run.path), policy="dataset", runtime=CPU))
    yield run


@pytest.mark.slow
def test_prediction_is_the_same_after_everything_is_pruned(real: RunFolder, tmp_path: Path) -> None:
    config = PredictConfig(
        images=tmp_path / "data" / "images",
        model=real.name,
        runs_dir=real.path.parent,
        ensembles_dir=tmp_path / "ensembles",
        output=OutputConfig(name="before", out=tmp_path / "predictions"),
        runtime=CPU,
    )
    before = predict(config)
    plan = plan_prune(
        PruneConfig(
            runs_dir=real.path.parent,
            ensembles_dir=tmp_path / "ensembles",
            predictions_dir=tmp_path / "predictions",
            flows=True,
            debug_runs=True,
        )
    )
    names = {"fold_0/last.pt", "fold_1/last.pt", "oof/flows.zarr"}
    expected = {real.path / name for name in names} | {tmp_path / "data" / "cache"}
    assert {item.path for item in plan.items} == expected
    result = prune(plan)
    assert result.removed == plan.items and not list(tmp_path.rglob("last.pt"))
    after = predict(replace(config, output=replace(config.output, name="after")))
    assert after.cells == before.cells
    assert after.submission.read_bytes() == before.submission.read_bytes()

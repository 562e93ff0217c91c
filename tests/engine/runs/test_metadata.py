from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
import yaml

from cellflow.config import (
    CalibrateConfig,
    GridConfig,
    MaskConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.runs.metadata import build_metadata, read_metadata, schema, write_metadata
from cellflow.engine.runs.state import overall_cv, run_state
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
GRID = GridConfig(n_thresholds=2, flow_thresholds=(0.4,), min_sizes=(15, 30), extras=False)


@pytest.fixture(scope="module")
def states(
    trained: TrainConfig, predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The tiny run as it was on disk at every state."""
    base = tmp_path_factory.mktemp("states")
    folders = {name: base / name / "tiny" for name in ("trained", "predicted", "calibrated")}
    states = shutil.ignore_patterns("last.pt")  # large, and nothing here reads them
    shutil.copytree(trained.runs_dir / trained.name, folders["trained"], ignore=states)
    shutil.copytree(predicted_once.runs_dir / trained.name, folders["predicted"], ignore=states)
    shutil.copytree(folders["predicted"], folders["calibrated"])
    name, ensembles = str(folders["calibrated"]), base / "ensembles"
    calibrate(CalibrateConfig(runs=(name,), ensembles_dir=ensembles, grid=GRID, runtime=CPU))
    return folders


@pytest.fixture
def at(states: dict[str, Path], tmp_path: Path) -> Callable[[str], RunFolder]:
    """A run at a state, free to be broken; as if nobody had recorded it yet."""
    records = shutil.ignore_patterns("metadata.json", "environment.json", "tracking.json")

    def at(state: str) -> RunFolder:
        goal = tmp_path / "runs" / "tiny"
        return RunFolder(Path(shutil.copytree(states[state], goal, ignore=records)))

    return at


def checked(run: RunFolder) -> dict[str, Any]:
    """Metadata that fit the schema, and are plain JSON."""
    found = build_metadata(run)
    jsonschema.Draft202012Validator(schema()).validate(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_calibrated_run(at: Callable[[str], RunFolder]) -> None:
    run = at("calibrated")
    found, record = checked(run), run.read_record()
    assert found["experiment"] == "tiny" and found["status"] == "calibrated" and not found["debug"]
    assert found["config"] == record["config"]
    assert found["config_hash"] == hash_json(record["config"])
    images = len(pd.read_csv(run.folds))
    expected = {"path": record["data"], "hash": record["data_hash"], "images": images}
    assert found["data"] == expected
    assert found["split"] == {"id": record["folds_hash"], "folds": [0, 1]}
    assert found["versions"] == record["versions"]
    for item in found["model"]["folds"]:
        summary = json.loads(run.fold(item["fold"]).summary.read_text())
        assert item["hash"] == hash_file(run.path / item["file"])
        assert (item["score"], item["epoch"]) == (summary["best_score"], summary["best_epoch"])
        assert (item["epochs"], item["finished"]) == (3, "epochs")


def test_its_scores_are_those_of_the_tables(at: Callable[[str], RunFolder]) -> None:
    run = at("calibrated")
    cv, table, scores = checked(run)["cv"], pd.read_csv(run.cv), pd.read_csv(run.scores)
    overall = table[table["scope"] == "overall"].iloc[0]
    assert cv["raw"] == cv["best_epoch"] == overall["best_epoch"]
    assert cv["post"] == cv["cross_fitted"] == overall["cross_fitted"]
    assert overall_cv(run)["expected"] == cv["expected"] == overall["expected"]
    assert set(cv["per_fold"]) == {"0", "1"}
    assert set(cv["per_type"]) == set(scores["cell_type"])
    fold = table[(table["scope"] == "fold") & (table["name"] == "1")].iloc[0]
    assert cv["per_fold"]["1"]["best_epoch"] == fold["best_epoch"]
    assert cv["per_threshold"]["0.50"] == pytest.approx(scores["ap50"].mean())
    scores.assign(ap95=0.25).to_csv(run.scores, index=False)
    assert checked(run)["cv"]["per_threshold"]["0.95"] == 0.25
    found, thresholds = checked(run)["thresholds"], json.loads(run.thresholds.read_text())
    assert found["all types"] == thresholds["shared"]
    assert found["per_type"] == thresholds["per_type"]


@pytest.mark.parametrize("state", ["trained", "predicted", "calibrated"])
def test_states(at: Callable[[str], RunFolder], state: str) -> None:
    run = at(state)
    found = checked(run)
    assert found["status"] == state == run_state(run).status
    assert (found["cv"] is None) == (found["policy"] is None) == (state == "trained")
    assert (found["thresholds"] is None) == (state != "calibrated")
    if state == "predicted":
        assert found["cv"]["post"] is None and found["cv"]["raw"] is not None


def test_a_run_half_way(at: Callable[[str], RunFolder]) -> None:
    run = at("trained")
    run.fold(0).summary.unlink()  # killed after its second epoch
    history = pd.read_csv(run.fold(0).history).iloc[:2]
    history.assign(val_score=[0.25, 0.125]).to_csv(run.fold(0).history, index=False)
    shutil.rmtree(run.fold(1).path)
    found = checked(run)
    assert found["status"] == "training" == run_state(run).status
    first, second = found["model"]["folds"]
    assert (first["score"], first["epoch"], first["epochs"]) == (0.25, 1, 2)
    assert first["finished"] == "" and first["hash"] == hash_file(run.fold(0).best)
    assert [second[key] for key in ("hash", "score", "epoch", "epochs")] == [None] * 4


def test_a_run_that_ran_out_of_time(tiny_config: TrainConfig, tmp_path: Path) -> None:
    train(replace(tiny_config, runs_dir=tmp_path, fold=("1",), time_budget="0.001s"))
    found = checked(RunFolder(tmp_path / "tiny"))
    assert found["status"] == "training"
    assert [item["hash"] is None for item in found["model"]["folds"]] == [True, False]


def test_what_is_of_other_models_is_left_out(at: Callable[[str], RunFolder]) -> None:
    run = at("calibrated")
    shutil.copyfile(run.fold(0).best, run.fold(1).best)
    found = checked(run)
    assert found["status"] == "trained"
    assert found["cv"] is found["policy"] is found["thresholds"] is None


def test_an_empty_folder_and_a_record_alone(at: Callable[[str], RunFolder], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert checked(RunFolder(tmp_path / "empty"))["status"] == "training"
    run = at("trained")
    for fold in (0, 1):
        shutil.rmtree(run.fold(fold).path)
    assert checked(run)["status"] == "training"


FILES = (
    "config.yaml", "folds.csv", "cv.csv", "thresholds.json", "oof/oof.json", "oof/scores.csv",
    "fold_0/summary.json", "fold_0/history.csv", "fold_0/best.pt", "metadata.json", "tracking.json",
    "publication.json", "environment.json",
)  # fmt: skip
DAMAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "list": b"[1, 2]",
    "null": b"null",
    "half": b'{"settings": 3, "links": [], "shared": 1, "members": 2, "finished": 5, "created": {}',
    "odd": b'{"settings": 3, "links": [], "members": 2, "finished": 5, "best_score": NaN, "models": 1}',
    "table": b"id,fold,scope,name,ap50,epoch\na,b,overall,c,d,e\n",
}


@pytest.mark.parametrize("file", FILES)
def test_damaged_parts(at: Callable[[str], RunFolder], file: str) -> None:
    run = at("calibrated")
    for content in DAMAGE.values():
        (run.path / file).write_bytes(content)
        found = checked(run)
        assert read_metadata(run) is None
        if file == "config.yaml":
            assert found["config"] is None and run_state(run).problem
    assert write_metadata(run) == read_metadata(run)


def test_labels_links_and_publication(at: Callable[[str], RunFolder]) -> None:
    run = at("trained")
    assert checked(run)["trackers"] == {} and checked(run)["publication"] is None
    run.environment.write_text('{"environment": "colab", "cores": 2}')
    assert checked(run)["environment"] == "colab"
    tracking = {
        "settings": {"comment": "first", "environment": "my laptop", "wandb": True},
        "links": {"wandb": {"fold_0": "wandb/offline-1"}, "sheet": "https://sheet"},
        "more": 1,
    }
    run.tracking.write_text(json.dumps(tracking))
    published = {
        "to": "kaggle",
        "url": "https://k",
        "title": "t",
        "version": 2,
        "date": "2025-01-01",
    }
    run.publication.write_text(json.dumps(published | {"files": 3}))
    found = checked(run)
    assert (found["comment"], found["environment"]) == ("first", "my laptop")
    assert found["host"] == {"environment": "colab", "cores": 2}
    assert found["trackers"] == tracking["links"] and found["publication"] == published
    write_metadata(run)
    run.tracking.unlink()  # as in a copy that came without it
    found = checked(run)
    assert (found["comment"], found["environment"]) == ("first", "my laptop")
    assert found["trackers"] == tracking["links"]


def test_debug_is_what_the_record_says(at: Callable[[str], RunFolder]) -> None:
    run = at("trained")
    record = run.read_record()
    record["config"]["debug"] = True
    run.write_record(record)
    assert checked(run)["debug"] is True


def test_ensembles_of_the_run(at: Callable[[str], RunFolder]) -> None:
    run = at("calibrated")
    member = hash_file(run.fold(1).best)
    ensembles = run.path.parent.parent / "ensembles"
    for name, members in {"a+tiny": ("0" * 32, member), "a+b": ("0" * 32,)}.items():
        thresholds = Thresholds(MaskConfig(), members=members)
        write_thresholds(ensembles / name / "ensemble.json", thresholds)
    (ensembles / "c").mkdir()
    (ensembles / "c" / "ensemble.json").write_text(json.dumps({"members": 3}))
    assert checked(run)["ensembles"] == ["a+tiny"]
    assert build_metadata(run, ensembles_dir=run.path / "none")["ensembles"] == []


def test_writing(at: Callable[[str], RunFolder]) -> None:
    run = at("trained")
    first = write_metadata(run)
    assert read_metadata(run) == first
    past = first | {"updated": "2020-01-01T00:00:00+00:00", "created": "2019-01-01T00:00:00+00:00"}
    run.metadata.write_text(json.dumps(past))
    os.utime(run.metadata, (1, 1))
    assert write_metadata(run) == past  # nothing has changed
    assert run.metadata.stat().st_mtime == 1
    run.tracking.write_text('{"settings": {"comment": "now said"}}')
    found = write_metadata(run)
    assert found["created"] == past["created"] and found["updated"] > past["updated"]
    assert read_metadata(run) == found and found["comment"] == "now said"
    assert not list(run.path.glob(".*tmp*"))


def test_created_is_when_the_record_was_written(at: Callable[[str], RunFolder]) -> None:
    run = at("trained")
    os.utime(run.record_path, (86400, 86400))
    assert checked(run)["created"] == "1970-01-02T00:00:00+00:00"


def test_schema_is_valid_and_strict(at: Callable[[str], RunFolder]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    good = checked(at("calibrated"))
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda plain: plain.pop("cv"),
        lambda plain: plain.update(unknown=1),
        lambda plain: plain.update(status="done"),
        lambda plain: plain.update(updated="yesterday"),
        lambda plain: plain["cv"].update(raw="0.3"),
        lambda plain: plain["cv"].update(other=0.3),
        lambda plain: plain["cv"]["per_fold"].update(all={}),
        lambda plain: plain["cv"]["per_threshold"].update(ap50=0.5),
        lambda plain: plain["thresholds"]["all types"].pop("min_size"),
        lambda plain: plain["model"]["folds"][0].update(hash="short"),
        lambda plain: plain["split"].update(folds=["0"]),
    ]
    for change in changes:
        bad = copy.deepcopy(good)
        change(bad)
        assert not validator.is_valid(bad)


def test_every_part_of_the_schema_is_described() -> None:
    found = schema()
    parts = {**found["properties"], **found["$defs"]["cv_row"]["properties"]}
    resolved = {
        name: part | found["$defs"].get(part.get("$ref", "").split("/")[-1], {})
        for name, part in parts.items()
    }
    said = {name for name, part in resolved.items() if part.get("description") or "const" in part}
    assert said == set(parts)
    assert found["$id"] and found["$schema"].endswith("2020-12/schema")


def test_neither_metadata_nor_lists_of_runs_need_torch() -> None:
    code = (
        "import sys, cellflow.engine.runs.metadata, cellflow.engine.runs.catalog, cellflow.engine.runs.prune;"
        "sys.exit('torch' in sys.modules or 'zarr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_record_of_no_run(at: Callable[[str], RunFolder]) -> None:
    run = at("trained")
    record = run.read_record()
    run.write_record(record | {"folds": ["a", None]})
    assert checked(run)["split"]["folds"] == [] and "folds" in run_state(run).problem
    run.record_path.write_text(yaml.safe_dump([1]))
    assert checked(run)["data"] == {"path": None, "hash": None, "images": 6}

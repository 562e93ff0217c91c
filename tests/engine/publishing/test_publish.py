from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch

from cellflow.config import (
    CalibrateConfig,
    MaskConfig,
    OutputConfig,
    PredictConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.config.publishing import PublishConfig
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.publishing.publish import plan_publication, publish
from cellflow.engine.publishing.rebuilt_wheel import rebuilt_wheel
from cellflow.engine.publishing.wheels import collect_wheels
from cellflow.engine.runs.metadata import schema, write_metadata
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.validation.calibrate import calibrate
from cellflow.errors import CellflowError, ConfigError, PackageError, RunError
from cellflow.io.dataset import Dataset
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
INFERENCE = {
    "config.yaml", "folds.csv", "folds.json", "cv.csv", "thresholds.json",
    *(f"fold_{k}/{name}" for k in (0, 1) for name in ("best.pt", "styles.json", "summary.json")),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is trained, predicted out of fold and calibrated; tests copy it."""
    runs = tmp_path_factory.mktemp("finished") / "runs"
    shutil.copytree(predicted_once.runs_dir, runs)
    calibrate(CalibrateConfig(runs=("tiny",), runs_dir=runs))
    return RunFolder(runs / "tiny")


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy, free to be broken, with all that lies about in a run of some weeks."""
    shutil.copytree(finished.path, tmp_path / "runs" / "tiny")
    run = RunFolder(tmp_path / "runs" / "tiny")
    for name in (
        ".ipynb_checkpoints/a.ipynb", "calibration/.ipynb_checkpoints/x.png", "fold_0/.lock",
        "fold_0/.1234abcd.tmp.pt", "wandb/latest-run/run.wandb", "tracking.json", "notes.txt",
        "calibration/__pycache__/x.pyc", "events.jsonl", "oof/.old/x.csv",
    ):  # fmt: skip
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return run


@pytest.fixture
def config(run: RunFolder, tmp_path: Path) -> PublishConfig:
    return PublishConfig(
        what="tiny",
        runs_dir=run.path.parent,
        ensembles_dir=tmp_path / "ensembles",
        wheels="none",
        owner="ada",
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("kaggle", reason="needs the extra: pip install cellflow[kaggle]")
    with fake_kaggle().FakeKaggle() as server:
        server.point_client(monkeypatch, tmp_path / "home")
        yield server


def fake_kaggle() -> Any:
    """`tests/io/fake_kaggle.py`; tests are no package."""
    if "fake_kaggle" not in sys.modules:
        path = Path(__file__).parents[2] / "io" / "fake_kaggle.py"
        spec = importlib.util.spec_from_file_location("fake_kaggle", path)
        assert spec is not None and spec.loader is not None
        sys.modules["fake_kaggle"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["fake_kaggle"])
    return sys.modules["fake_kaggle"]


def calibrated_ensemble(run: RunFolder, ensembles: Path) -> Path:
    """Thresholds for both folds together."""
    record = ensembles / run.name / "ensemble.json"
    record.parent.mkdir(parents=True)
    write_thresholds(record, loose_thresholds(run))
    return record


def loose_thresholds(run: RunFolder) -> Thresholds:
    """Thresholds with which even a network that has learned for seconds finds cells."""
    hashes = tuple(hash_file(run.fold(fold).best) for fold in (0, 1))
    loose = MaskConfig(cellprob_threshold=-1.0, niter=100, flow_threshold=0.0, min_size=5)
    return Thresholds(loose, source="a test", members=hashes)


def names(publication: Any) -> set[str]:
    return {name for name, _ in publication.files}


def overall(run: RunFolder, column: str) -> float:
    cv = pd.read_csv(run.cv)
    return float(cv.loc[cv["scope"] == "overall", column].iloc[0])


@pytest.mark.slow
def test_a_dry_run_lists_what_inference_and_readers_need_and_nothing_else(
    run: RunFolder, config: PublishConfig, server: Any
) -> None:
    plan = publish(replace(config, dry_run=True))
    assert plan.title == f"tiny_{overall(run, 'cross_fitted'):.4f}"
    assert plan.reference == f"ada/{plan.title.replace('_', '-').replace('.', '-')}"
    assert names(plan) >= INFERENCE
    found = {
        path.relative_to(run.path).as_posix(): path.stat().st_size
        for path in run.path.rglob("*")
        if path.is_file()
    }
    reduced = {"config.yaml", "metadata.json"}  # copies without what is private
    assert all(found[name] == size for name, size in plan.files if name not in reduced)
    assert plan.total == sum(size for _, size in plan.files)
    assert names(plan) <= set(found)
    kept_back = set(found) - names(plan)
    for name in ("fold_0/last.pt", "fold_0/.lock", "fold_0/log.txt", "tracking.json", "notes.txt"):
        assert name in kept_back
    for word in ("ipynb_checkpoints", ".tmp", "wandb", "flows.zarr", "pycache", "events", ".old"):
        assert not [name for name in names(plan) if word in name]
    assert server.calls == [] and not run.publication.exists()


def test_state_and_flows_when_asked(run: RunFolder, config: PublishConfig) -> None:
    more = plan_publication(replace(config, state=True, flows=True))
    extra = names(more) - names(plan_publication(config))
    assert {"fold_0/last.pt", "fold_1/last.pt", "oof/flows.zarr/zarr.json"} <= extra
    assert all(name.endswith("last.pt") or name.startswith("oof/flows.zarr/") for name in extra)
    shutil.rmtree(run.flows)
    run.fold(1).last.unlink()
    for wish in ({"state": True}, {"flows": True}):
        with pytest.raises(RunError, match="not there"):
            plan_publication(replace(config, **wish))  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_was_listed_arrives_and_predicts_as_the_run_does(
    run: RunFolder,
    config: PublishConfig,
    server: Any,
    no_index: None,
    only_tqdm: None,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    write_thresholds(run.thresholds, loose_thresholds(run))
    wish = replace(config, wheels="missing")
    plan, done = plan_publication(wish), publish(wish)
    assert (done.url, done.version) == (f"https://www.kaggle.com/datasets/{plan.reference}", 1)
    made = server.datasets[plan.reference]
    assert (made.title, made.private) == (plan.title, True)
    arrived = made.versions[0].files
    assert {name: len(content) for name, content in arrived.items()} == dict(plan.files)
    assert arrived["fold_1/best.pt"] == run.fold(1).best.read_bytes()
    wheels = sorted(name.split("-")[0] for name in arrived if name.startswith("wheels/"))
    assert wheels == ["wheels/cellflow", "wheels/tqdm"]
    record = json.loads(run.publication.read_text())
    assert record.pop("date")
    assert record == {"to": "kaggle", "url": done.url, "title": plan.title, "version": 1}
    assert {path.name for path in run.path.parent.iterdir()} == {"tiny"}  # no staging folder

    folder = server.mount(tmp_path / "input") / plan.slug
    submissions = {}
    for name, model in {"run": run.path, "published": folder}.items():
        result = predict(
            PredictConfig(
                images=tiny_data / "images",
                model=str(model),
                ensembles_dir=tmp_path / "none",
                output=OutputConfig(
                    name=name, out=tmp_path / "predictions", export=("masks", "submission")
                ),
                runtime=CPU,
            )
        )
        submissions[name] = (result.folder / "submission.csv").read_bytes()
    assert b" " in submissions["run"]  # there are cells; any two empty files are the same
    assert submissions["run"] == submissions["published"]


def test_an_ensemble_of_other_models_stays_behind(
    run: RunFolder, config: PublishConfig, tmp_path: Path
) -> None:
    record = calibrated_ensemble(run, tmp_path / "ensembles")
    assert "ensembles/tiny/ensemble.json" in names(plan_publication(config))
    record.write_text(record.read_text().replace(hash_file(run.fold(1).best), "another"))
    assert "ensembles/tiny/ensemble.json" not in names(plan_publication(config))


def test_the_name_follows_the_cv(run: RunFolder, config: PublishConfig) -> None:
    before = plan_publication(config)
    cv = pd.read_csv(run.cv)
    cv["cross_fitted"] += 0.1
    cv.to_csv(run.cv, index=False)
    assert plan_publication(config).slug != before.slug
    cv["cross_fitted"] = np.nan
    cv.to_csv(run.cv, index=False)
    assert plan_publication(config).title == f"tiny_{overall(run, 'best_epoch'):.4f}"


@pytest.fixture
def data(config: PublishConfig, tiny_data: Path, tmp_path: Path) -> PublishConfig:
    """Prepared data with what lies about in it; small, so that sending it is quick."""
    folder = tmp_path / "work" / "neurons"
    shutil.copytree(tiny_data, folder)
    (folder / "images" / ".ipynb_checkpoints").mkdir()
    (folder / "images" / ".ipynb_checkpoints" / "a.png").write_text("")
    (folder / "scratch.csv").write_text("")
    return replace(config, what=str(folder))


def test_prepared_data_with_its_folds(
    data: PublishConfig, tiny_data: Path, server: Any, tmp_path: Path
) -> None:
    done = publish(data)
    assert (done.title, done.reference) == ("neurons", "ada/neurons")
    there = server.mount(tmp_path / "input") / "neurons"
    assert Dataset.open(there).hash == Dataset.open(tiny_data).hash
    for name in ("folds.csv", "folds.json"):
        assert (there / name).read_bytes() == (tiny_data / name).read_bytes()
    for path in sorted((tiny_data / "labels").iterdir()):
        assert (there / "labels" / path.name).read_bytes() == path.read_bytes()
    stray = [path.name for path in there.rglob("*") if path.name in ("a.png", "scratch.csv")]
    assert stray == [] and not (there / "cache").exists()
    with pytest.raises(ConfigError, match="--state"):
        publish(replace(data, state=True))


def test_the_same_name_is_a_new_version(data: PublishConfig, server: Any) -> None:
    assert publish(data).version == 1
    second = publish(replace(data, message="more cells"))
    assert second.version == 2
    assert server.datasets[second.reference].versions[1].notes == "more cells"
    assert publish(replace(data, title="season 1")).version == 1
    assert set(server.datasets) == {"ada/neurons", "ada/season-1"}


def test_who_sees_a_dataset_is_never_changed_in_silence(data: PublishConfig, server: Any) -> None:
    done = publish(data)
    with pytest.raises(ConfigError, match="is private"):
        publish(replace(data, public=True))
    server.datasets[done.reference].private = False
    with pytest.raises(ConfigError, match="--public"):
        publish(data)
    assert publish(replace(data, public=True)).version == 2


def test_without_an_owner_it_is_that_of_the_key(data: PublishConfig, server: Any) -> None:
    assert publish(replace(data, owner=None)).owner == "ada"


def test_a_refusal_leaves_nothing_behind(data: PublishConfig, server: Any) -> None:
    server.refusal = "no space left for ada"
    with pytest.raises(CellflowError, match="no space left for ada"):
        publish(data)
    assert [path.name for path in Path(str(data.what)).parent.iterdir()] == ["neurons"]


def test_what_is_not_ready_says_what_to_do(run: RunFolder, config: PublishConfig) -> None:
    summary = run.fold(1).summary
    facts = json.loads(summary.read_text())
    summary.write_text(json.dumps(facts | {"finished": False}))
    with pytest.raises(RunError, match="cellflow train --fold 1"):
        plan_publication(config)
    assert names(plan_publication(replace(config, unfinished=True)))
    summary.write_text(json.dumps(facts))
    record = json.loads(run.oof_record.read_text())
    run.oof_record.write_text(json.dumps(record | {"models": {"0": "a", "1": "b"}}))
    with pytest.raises(RunError, match=r"other models.*cellflow oof \S*/tiny"):
        plan_publication(config)
    run.cv.unlink()
    with pytest.raises(RunError, match=r"cellflow oof \S*/tiny"):
        plan_publication(config)
    assert plan_publication(replace(config, title="models only")).slug == "models-only"


def test_names_that_kaggle_does_not_take(run: RunFolder, config: PublishConfig) -> None:
    for title in ("short", "x" * 51):
        with pytest.raises(ConfigError, match="6 to 50"):
            plan_publication(replace(config, title=title))
    with pytest.raises(ConfigError, match="--title"):
        plan_publication(replace(config, title="細胞細胞細胞細胞"))
    long = run.path.with_name("a" * 60)
    run.path.rename(long)
    with pytest.raises(ConfigError, match="--title"):
        plan_publication(replace(config, what=long.name))


# ---- wheels ------------------------------------------------------------------------------------


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine without internet and without a mirror."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.mark.parametrize("name", ["tqdm", "setuptools"])  # setuptools holds packages of others
def test_a_wheel_made_of_what_is_installed_installs_the_same_files(
    name: str, tmp_path: Path
) -> None:
    package = distribution(name)
    wheel = rebuilt_wheel(package, tmp_path)
    assert wheel.name == f"{name}-{package.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        record = archive.read(f"{name}-{package.version}.dist-info/RECORD").decode()
    assert {line.split(",")[0].strip('"') for line in record.splitlines()} == inside
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-compile", "--target", str(target), str(wheel)], check=True)
    for file in package.files or []:
        added = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in added:
            assert (target / file).read_bytes() == Path(str(file.locate())).read_bytes()


def test_a_changed_installation_makes_no_wheel(tmp_path: Path) -> None:
    site = tmp_path / "site"
    package = distribution("filelock")
    for file in package.files or []:
        if ".." not in file.parts and file.suffix != ".pyc":
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(str(package.locate_file(file))), site / file)
    copy = next(iter(type(package).discover(name="filelock", path=[str(site)])))
    assert rebuilt_wheel(copy, tmp_path).exists()
    changed = site / "filelock" / "__init__.py"
    changed.write_text("print('other')\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PackageError, match="force-reinstall") as caught:
        rebuilt_wheel(copy, empty)
    assert caught.value.path == changed and not list(empty.iterdir())


@pytest.mark.slow
def test_wheels_without_an_index_are_made_here(
    no_index: None, only_tqdm: None, tmp_path: Path
) -> None:
    wheels = collect_wheels(tmp_path)
    assert [path.name.split("-")[0].lower() for path in wheels] == ["cellflow", "tqdm"]
    with zipfile.ZipFile(wheels[0]) as archive:
        assert {"cellflow/engine/publishing/wheels.py", "cellflow/__init__.pyi"} <= set(
            archive.namelist()
        )
        metadata = archive.read(f"cellflow-{version('cellflow')}.dist-info/METADATA").decode()
    assert "Requires-Dist: tqdm" in metadata


@pytest.fixture
def only_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if cellflow needed tqdm alone: all wheels are for the slow test of the notebook."""
    from cellflow.engine.publishing import wheels

    monkeypatch.setattr(wheels, "_needed", lambda *_: [distribution("tqdm")])


@pytest.mark.slow
def test_wheels_for_another_python_need_an_index(
    no_index: None, only_tqdm: None, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=r"(?s)Python 3\.99 on Linux.*PIP_FIND_LINKS") as caught:
        collect_wheels(tmp_path, python="3.99")
    assert "--wheels none" in str(caught.value)


def test_torch_is_left_to_kaggle_unless_all_is_asked_for() -> None:
    from cellflow.engine.publishing.wheels import _needed

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = distribution("cellflow")
    every = {package.name.lower() for package in _needed(own, here, ())}
    less = {package.name.lower() for package in _needed(own, here, {"torch"})}
    assert {"torch", "sympy"} <= every - less
    assert {"scikit-image", "tyro", "zarr", "numba"} <= less < every
    assert "pytest" not in every


def test_a_published_run_brings_the_thresholds_of_its_ensemble(
    run: RunFolder, config: PublishConfig, server: Any, tiny_data: Path, tmp_path: Path
) -> None:
    calibrated_ensemble(run, tmp_path / "ensembles")
    folder = server.mount(tmp_path / "input") if publish(config) else tmp_path
    folder = next(folder.iterdir())
    cpu = Machine(torch.device("cpu"))
    there = open_models([str(folder)], cpu, ensembles_dir=tmp_path / "none")
    here = open_models([str(run.path)], cpu, ensembles_dir=tmp_path / "ensembles")
    assert there.thresholds == here.thresholds and there.thresholds.source == "a test"
    assert (there.policy, there.average) == (here.policy, here.average)


def test_what_is_private_stays_here(
    run: RunFolder, config: PublishConfig, server: Any, tmp_path: Path
) -> None:
    facts = {"environment": "plain", "hostname": "annas-laptop", "folder": "/home/anna", "cores": 2}
    run.environment.write_text(json.dumps(facts))
    write_metadata(run)
    assert "annas-laptop" in run.metadata.read_text()
    publish(config)
    (folder,) = server.mount(tmp_path / "input").iterdir()
    words = ["annas-laptop", "/home/anna", str(tmp_path), run.read_record()["data"]]
    for path in (item for item in folder.rglob("*") if item.is_file()):
        assert not [word for word in words if word.encode() in path.read_bytes()], path
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["host"]["cores"] == 2 and metadata["trackers"] == {}
    jsonschema.validate(metadata, schema())


def test_metadata_that_cannot_be_read_are_not_sent_as_they_are(
    run: RunFolder, config: PublishConfig
) -> None:
    """Such as those of a later version: what in them is private is not known."""
    facts = {"format": "cellflow-metadata", "version": 99, "host": {"hostname": "annas-laptop"}}
    run.metadata.write_text(json.dumps(facts))
    plan = publish(replace(config, title="My cells", dry_run=True))
    assert "config.yaml" in names(plan) and "metadata.json" not in names(plan)

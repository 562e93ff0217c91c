from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellflow.config import (
    CalibrateConfig,
    InferenceConfig,
    MaskConfig,
    MaskOverrides,
    OutputConfig,
    PredictConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.config.publishing import COMPETITION, NotebookConfig
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.publishing.notebook import write_notebook
from cellflow.engine.publishing.published_files import run_files
from cellflow.engine.publishing.wheels import collect_wheels
from cellflow.engine.runs.contents import check_models
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.engine.validation.calibrate import calibrate
from cellflow.errors import ConfigError, DataError, RunError
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")


@pytest.fixture(scope="module")
def run(predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A calibrated run, with thresholds of its own for the ensemble of its folds."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(predicted_once.runs_dir, folder / "runs")
    calibrate(CalibrateConfig(runs=("tiny",), runs_dir=folder / "runs"))
    run = RunFolder(folder / "runs" / "tiny")
    loose = MaskConfig(cellprob_threshold=-1.0, niter=100, flow_threshold=0.0, min_size=5)
    hashes = tuple(hash_file(run.fold(fold).best) for fold in (0, 1))
    record = folder / "ensembles" / "tiny" / "ensemble.json"
    record.parent.mkdir(parents=True)
    write_thresholds(record, Thresholds(loose, source="a test", members=hashes))
    return run


@pytest.fixture
def kaggle(run: RunFolder, tiny_data: Path, tmp_path: Path) -> Path:
    """Published files and the competition's images as they lie in /kaggle/input, read-only."""
    ensembles = run.path.parents[1] / "ensembles"
    for name, source in run_files(run, check_models(run), ensembles_dir=ensembles).items():
        path = tmp_path / "input" / "datasets" / "ada" / "tiny-0-1234" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path)
    images = tmp_path / "input" / COMPETITION / "test"
    images.mkdir(parents=True)
    for path in sorted((tiny_data / "images").iterdir())[:3]:
        shutil.copy2(path, images)
    return tmp_path


@pytest.fixture
def published(kaggle: Path) -> Iterator[Path]:
    """Folder of the published dataset."""
    yield kaggle / "input" / "datasets" / "ada" / "tiny-0-1234"
    for path in kaggle.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


@pytest.fixture
def config(run: RunFolder, tmp_path: Path) -> NotebookConfig:
    return NotebookConfig(run="tiny", runs_dir=run.path.parent, out=tmp_path / "tiny.ipynb")


def expected(run: RunFolder, images: Path, folder: Path, **settings: Any) -> bytes:
    """Submission that `cellflow predict` makes here, from the run itself."""
    settings = {"ensembles_dir": run.path.parents[1] / "ensembles"} | settings
    result = predict(
        PredictConfig(
            images=images,
            model="tiny",
            runs_dir=run.path.parent,
            output=OutputConfig(out=folder / "predictions", overwrite=True),
            **settings,
        )
    )
    return (result.folder / "submission.csv").read_bytes()


def execute(
    notebook: Path, kaggle: Path, python: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the cells in order in one process, as *Run All* does."""
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = notebook.with_suffix(".py")
    script.write_text("\n\n".join(code))
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))
    }
    environment |= {
        "CELLFLOW_KAGGLE_INPUT": str(kaggle / "input"),
        "CELLFLOW_KAGGLE_WORKING": str(kaggle / "working"),
        **variables,
    }
    return subprocess.run(
        [python, str(script)], env=environment, cwd=kaggle, capture_output=True, text=True
    )


def state(folder: Path) -> dict[Path, int]:
    """Everything in a folder, with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def make_read_only(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_it_is_a_notebook_of_plain_python(config: NotebookConfig) -> None:
    nbformat = pytest.importorskip("nbformat")
    path = write_notebook(config)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kaggle.isInternetEnabled is False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec")  # no magics, no shell lines


def test_written_again_only_when_asked(config: NotebookConfig, tmp_path: Path) -> None:
    path = write_notebook(config)
    assert write_notebook(config) == path  # the same is no change
    for mine in (b"mine", b"\xff\xfe not UTF-8"):
        path.write_bytes(mine)
        with pytest.raises(DataError, match="--overwrite"):
            write_notebook(config)
        assert path.read_bytes() == mine
    write_notebook(replace(config, overwrite=True))
    assert json.loads(path.read_text())["nbformat"] == 4


def test_without_out_it_lies_here(
    config: NotebookConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_notebook(replace(config, out=None)) == Path("tiny-kaggle.ipynb")


@pytest.mark.parametrize("images", ["/kaggle/input/x", "../x", ""])
def test_images_are_named_as_kaggle_shows_them(config: NotebookConfig, images: str) -> None:
    with pytest.raises(ConfigError, match="below /kaggle/input"):
        write_notebook(replace(config, images=images))


def test_a_run_that_is_not_there(config: NotebookConfig) -> None:
    with pytest.raises(RunError, match="tiny"):
        write_notebook(replace(config, run="other"))


@pytest.mark.slow
def test_every_cell_runs_and_the_submission_is_that_of_the_run(
    config: NotebookConfig, run: RunFolder, kaggle: Path, published: Path
) -> None:
    """Here cellflow is installed; settings reach the prediction, and inputs are only read."""
    inner = published / "fold_0" / "fold_0"  # as an archive is unpacked that holds its own folder
    inner.mkdir()
    for path in list((published / "fold_0").iterdir()):
        if path != inner:
            path.rename(inner / path.name)
    make_read_only(kaggle / "input")
    before = state(kaggle / "input")
    mask = MaskOverrides(min_size=9)
    inference = InferenceConfig(scales=(1.0, 1.1))
    notebook = write_notebook(replace(config, mask=mask, inference=inference))
    done = execute(notebook, kaggle, sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    found = (kaggle / "working" / "submission.csv").read_bytes()
    images = kaggle / "input" / COMPETITION / "test"
    assert b" " in found  # there are cells; any two empty files are the same
    assert found == expected(run, images, kaggle, mask=mask, inference=inference)
    single = kaggle / "none"  # without the ensemble's own thresholds it would be another
    assert found != expected(
        run, images, kaggle, mask=mask, inference=inference, ensembles_dir=single
    )
    assert state(kaggle / "input") == before  # a superuser may write where it is forbidden
    assert "id,predicted" in done.stdout
    assert sorted(path.name for path in (kaggle / "working").iterdir()) == ["submission.csv"]


def test_another_run_is_not_taken_for_it(
    config: NotebookConfig, kaggle: Path, published: Path
) -> None:
    notebook = write_notebook(config)
    with (published / "fold_1" / "best.pt").open("ab") as file:
        file.write(b" ")
    done = execute(notebook, kaggle, sys.executable)
    assert done.returncode != 0
    assert "No dataset with the models of tiny" in done.stderr
    assert f"Runs with other models: {published}" in done.stderr
    shutil.rmtree(published)
    assert "Add Input" in execute(notebook, kaggle, sys.executable).stderr


def test_images_that_are_not_attached(
    config: NotebookConfig, kaggle: Path, published: Path
) -> None:
    notebook = write_notebook(replace(config, images="another-competition/test"))
    done = execute(notebook, kaggle, sys.executable)
    assert done.returncode != 0 and "No folder another-competition/test" in done.stderr


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of everything, for an environment that has nothing."""
    folder = tmp_path_factory.mktemp("wheels") / "wheels"
    collect_wheels(folder, which="all")
    return folder


@pytest.mark.slow
def test_in_an_environment_that_has_nothing_but_the_published_wheels(
    config: NotebookConfig,
    run: RunFolder,
    kaggle: Path,
    published: Path,
    wheels: Path,
) -> None:
    shutil.copytree(wheels, published / "wheels", copy_function=os.link)
    subprocess.run([sys.executable, "-m", "venv", str(kaggle / "venv")], check=True)
    python = str(kaggle / "venv" / "bin" / "python")
    have = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    assert {item["name"] for item in json.loads(have.stdout)} <= {"pip", "setuptools", "wheel"}
    done = execute(
        write_notebook(config),
        kaggle,
        python,
        PIP_NO_INDEX="1",
        PIP_CONFIG_FILE=os.devnull,
        HOME=str(kaggle / "home"),
        PYTHONNOUSERSITE="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ask = [python, "-I", "-c", "import cellflow; print(cellflow.__file__)"]
    where = subprocess.run(ask, cwd=kaggle, capture_output=True, text=True)
    assert where.stdout.startswith(str(kaggle / "venv"))
    images = kaggle / "input" / COMPETITION / "test"
    found = (kaggle / "working" / "submission.csv").read_bytes()
    assert b" " in found
    assert found == expected(run, images, kaggle)
    shutil.rmtree(kaggle / "venv")


def test_nothing_is_needed_before_cellflow_is_there(config: NotebookConfig) -> None:
    """The cells import the standard library only."""
    import ast

    notebook = json.loads(write_notebook(config).read_text())
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names <= sys.stdlib_module_names
    assert all(importlib.util.find_spec(name) for name in names)

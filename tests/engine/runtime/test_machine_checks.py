from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cellflow.config.host import ChecksConfig
from cellflow.engine.runtime.machine_checks import (
    OPTIONAL_PARTS,
    Check,
    Checks,
    check_snapshot,
    run_checks,
)
from cellflow.environment import take_snapshot
from cellflow.environment.snapshot import Gpu, Snapshot
from cellflow.report.text.checks import checks_text


@pytest.fixture(scope="module")
def here() -> Snapshot:
    """This machine as one's own, without a GPU."""
    found = take_snapshot()
    paths = tuple(path for path in found.paths if path == "/home")
    return replace(found, variables={}, paths=paths, gpus=(), driver_gpus=(), mps=False)


def rows(snapshot: Snapshot) -> dict[str, Check]:
    return {row.what: row for row in check_snapshot(snapshot).rows}


def test_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    checks = run_checks(ChecksConfig())
    found = {row.what: row for row in checks.rows}
    for what in ("cellflow", "python", "packages", "host", "device", "mixed precision", "cores"):
        assert found[what].found
    for what in ("memory", "threads", "dataset", "runs", "free disk", "kernel cache", "kaggle"):
        assert found[what].found
    assert "torch 2" in found["packages"].found
    assert checks.ok
    assert list(tmp_path.iterdir()) == []  # looking changes nothing


def test_a_python_newer_than_tested_is_noted(here: Snapshot) -> None:
    assert rows(replace(here, python="3.11.7"))["python"].verdict == "ok"
    new = rows(replace(here, python="3.19.0rc1"))["python"]
    assert new.verdict == "note" and "tested up to 3.13" in new.found and "3.13" in new.advice


def test_the_engine_is_named(here: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLFLOW_ENGINE", "openvino")
    assert rows(here)["engine"].found.startswith("openvino for predictions")
    monkeypatch.setenv("CELLFLOW_ENGINE", "torch")
    assert rows(here)["engine"] == Check("engine", "torch")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    old = rows(here)["engine"]
    assert old.verdict == "note" and "vector instructions" in old.found


def test_text_names_every_row_and_what_to_do_below_it() -> None:
    checks = Checks(
        (Check("device", "cpu"), Check("runs", "/x cannot be written", "problem", "use --runs_dir"))
    )
    lines = checks_text(checks.rows).splitlines()
    assert lines[:3] == [
        "  device  cpu",
        "! runs    /x cannot be written",
        "          -> use --runs_dir",
    ]
    assert lines[-1] == "1 problem(s), marked with !"
    assert not checks.ok
    note = Checks((Check("memory", "2 GiB", "note"),))
    assert note.ok
    assert checks_text(note.rows).startswith("- memory")
    assert checks_text(note.rows).endswith("No problems.")


def test_json_holds_the_same_rows(here: Snapshot) -> None:
    checks = check_snapshot(here)
    plain = json.loads(json.dumps(checks.to_dict()))
    assert plain["ok"] == checks.ok
    assert [row["what"] for row in plain["checks"]] == [row.what for row in checks.rows]


def test_a_gpu_that_torch_cannot_use_is_a_problem(here: Snapshot) -> None:
    versions = {key: value for key, value in here.versions.items() if key != "cuda"}
    blind = replace(here, driver_gpus=("Tesla T4",), versions=versions)
    row = rows(blind)["device"]
    assert row.verdict == "problem"
    assert "built without CUDA and cannot use Tesla T4" in row.found
    assert "install a build of torch for CUDA" in row.advice
    assert not check_snapshot(blind).ok
    old_driver = replace(blind, versions=versions | {"cuda": "12.6"})
    assert "nvidia-smi" in rows(old_driver)["device"].advice
    hidden = replace(blind, variables={"CUDA_VISIBLE_DEVICES": ""})
    assert rows(hidden)["device"].verdict == "note"
    assert rows(hidden)["device"].advice == "unset CUDA_VISIBLE_DEVICES"
    seeing = replace(blind, gpus=(Gpu("Tesla T4", 15 * 2**30, (7, 5)),))
    assert rows(seeing)["device"] == Check("device", "cuda: Tesla T4 (15 GiB)")
    assert rows(seeing)["mixed precision"].found.startswith(
        "float16: GPU of compute capability 7.5"
    )


def test_little_memory_is_noted(here: Snapshot) -> None:
    assert rows(replace(here, memory=64 * 2**30, cgroup_memory=None))["memory"].verdict == "ok"
    little = rows(replace(here, memory=64 * 2**30, cgroup_memory=2**31))["memory"]
    assert little.verdict == "note"
    assert little.found == "2.0 GiB of 64.0 GiB"
    assert "--batch_size" in little.advice
    assert rows(replace(here, memory=None, cgroup_memory=None))["memory"].found == "unknown"


def test_more_threads_than_cores_is_noted(here: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLFLOW_THREADS", "1")
    few = replace(here, cpu_count=64, affinity=64, cgroup_cpus=None)
    assert rows(few)["threads"].verdict == "ok"
    monkeypatch.setenv("CELLFLOW_THREADS", "8")
    many = rows(replace(few, cgroup_cpus=2.0))["threads"]
    assert many.verdict == "note"
    assert many.advice == "export OMP_NUM_THREADS=2 CELLFLOW_THREADS=2"


def test_folders_are_those_of_the_host(here: Snapshot, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    slurm = replace(
        here,
        folder="/tmp/of-the-node",
        variables={"SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": "/", "TMPDIR": "/tmp"},
    )
    found = rows(slurm)
    assert found["host"].found.startswith("slurm: ")
    assert found["runs"].found.startswith("/runs")
    assert found["dataset"].advice == "cellflow prepare SOURCE --out /cellflow-data"
    assert rows(here)["dataset"].advice == "cellflow prepare SOURCE"
    ready = replace(here, datasets=(str(Path(here.folder) / "cellflow-data"),))
    assert rows(ready)["dataset"] == Check("dataset", ready.datasets[0])


def test_notes_of_the_host_are_shown(here: Snapshot) -> None:
    colab = replace(
        here,
        paths=("/content",),
        variables={"COLAB_RELEASE_TAG": "x", "COLAB_BACKEND_VERSION": "next"},
    )
    assert "drive.mount" in rows(colab)["note"].found


def test_a_folder_that_cannot_be_written_is_a_problem(here: Snapshot, tmp_path: Path) -> None:
    """A file in the way is a folder that cannot be written, for root as well."""
    (tmp_path / "blocked").write_text("")
    found = rows(replace(here, folder=str(tmp_path / "blocked")))
    assert found["runs"].verdict == "problem"
    assert "cannot be written" in found["runs"].found
    assert found["runs"].advice == "choose another folder with --runs_dir"


def test_optional_parts_say_how_to_install_them(tmp_path: Path) -> None:
    """In a Python that sees cellflow's packages but for the optional ones."""
    program = """
import importlib.metadata as metadata
from cellflow.config.host import ChecksConfig
real = metadata.distribution
def distribution(name):
    missing = "gspread six onnx bioimageio.core napari distributed dask-jobqueue openslide-python"
    if name in missing.split():
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.distribution = distribution
from cellflow.engine.runtime.machine_checks import run_checks
from cellflow.report.text.checks import checks_text
checks = run_checks(ChecksConfig())
assert checks.ok
print(checks_text(checks.rows))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    for part in OPTIONAL_PARTS:
        assert f"-> pip install 'cellflow[{part.extra}]'" in done.stdout
    assert "not installed, needed for --sheet" in done.stdout


def test_without_a_folder_for_kernels_it_says_so(tmp_path: Path) -> None:
    program = """
import numba.core.caching as caching
def refuse(self): raise OSError("read-only")
caching._CacheLocator.ensure_cache_path = refuse
caching._SourceFileBackedLocatorMixin.ensure_cache_path = refuse
from cellflow.config.host import ChecksConfig
from cellflow.engine.runtime.machine_checks import run_checks
(row,) = [row for row in run_checks(ChecksConfig()).rows if row.what == "kernel cache"]
print(row.verdict, row.advice)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "note export NUMBA_CACHE_DIR=FOLDER"

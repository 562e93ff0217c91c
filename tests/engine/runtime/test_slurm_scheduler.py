"""Jobs of Slurm, whose sbatch and scancel are scripts here that run the job's script on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
import scheduled

import cellflow
from cellflow.engine.runtime import _dask_clusters
from cellflow.engine.runtime.scheduler import open_scheduler
from cellflow.errors import CellflowError

pytest.importorskip("dask_jobqueue")

SBATCH = """#!/bin/sh
cp "$1" job.sh  # the script is removed once it is handed over
setsid sh job.sh > job.out 2>&1 &
echo $! >> jobs
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -- "-$job"; done
"""
JOB = {
    "jobqueue.slurm.cores": 1,
    "jobqueue.slurm.memory": "4GB",
    "jobqueue.slurm.interface": "lo",
    "jobqueue.slurm.worker-extra-args": ["--resources", "GPU=1"],
}


@pytest.mark.slow
def test_a_job_runs_tasks_and_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    folders = [str(Path(cellflow.__file__).parents[1]), str(Path(scheduled.__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    with _dask_clusters.dask.config.set(JOB), open_scheduler("slurm:1") as scheduler:
        outcome = scheduler.run(
            scheduled.leave_square, {"3": (tmp_path, 3)}, title="job", resources={"GPU": 1}
        )
    assert outcome.done == {"3": 9}
    (job,) = (tmp_path / "jobs").read_text().split()
    left = [item for item in psutil.process_iter() if _group(item.pid) == int(job)]
    _gone, alive = psutil.wait_procs(left, timeout=20)
    assert alive == []


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def test_what_a_job_is_must_be_said() -> None:
    with pytest.raises(CellflowError, match=r"jobqueue\.yaml"), open_scheduler("slurm"):
        pass


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with (
        pytest.raises(CellflowError, match=r"pip install 'cellflow\[slurm\]'"),
        open_scheduler("slurm"),
    ):
        pass

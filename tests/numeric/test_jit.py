"""Threads, forks, spawned workers, caches: the results never change and nothing fails."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cellflow.errors import ConfigError
from cellflow.numeric import _jit

EXERCISE = Path(__file__).with_name("exercise.py")


def run(mode: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXERCISE), mode],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def expected() -> str:
    return run("plain", CELLFLOW_THREADS="1")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["threads", "fork", "spawn"])
def test_same_results_in_workers(mode, expected):
    assert run(mode, CELLFLOW_THREADS="3") == expected


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "processes", "cluster"])
def test_same_results_under_dask(scheduler, expected):
    pytest.importorskip("dask" if scheduler != "cluster" else "distributed")
    assert run(f"dask-{scheduler}", CELLFLOW_THREADS="3") == expected


@pytest.mark.slow
def test_same_results_for_any_number_of_threads(expected):
    assert run("plain", CELLFLOW_THREADS="5") == expected


@pytest.mark.slow
def test_array_bounds_hold_and_a_cold_cache_works(tmp_path, expected):
    # numba ignores NUMBA_BOUNDSCHECK for kernels it finds in a cache, hence a folder of its own
    assert run("plain", NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)) == expected
    assert list(tmp_path.rglob("*.nbi"))


def test_import_compiles_nothing():
    code = (
        "import cellflow, sys; assert 'numba' not in sys.modules and 'torch' not in sys.modules;"
        "from cellflow.numeric import _regions; assert not _regions.keep_peaks.signatures"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_a_cache_folder(tmp_path):
    # a file in the way is a folder that cannot be written, for root as well
    (tmp_path / "blocked").write_text("")
    code = (
        "import numba.core.caching as c\n"
        "def refuse(self): raise OSError('read-only')\n"
        "c._CacheLocator.ensure_cache_path = refuse\n"
        "c._SourceFileBackedLocatorMixin.ensure_cache_path = refuse\n"
        "from cellflow.numeric.labels import instances_from_labels\n"
        "import numpy as np\n"
        "assert len(instances_from_labels(np.eye(3, dtype=int))) == 1\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "blocked")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=environment)


def test_damaged_cache_is_compiled_again(tmp_path):
    code = (
        "from cellflow.numeric.labels import instances_from_labels; import numpy as np;"
        "assert len(instances_from_labels(np.eye(3, dtype=int))) == 1"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=environment)
        for path in tmp_path.rglob("*.nb[ic]"):
            path.write_bytes(b"damaged")


@pytest.mark.slow
def test_six_cold_starts_share_one_empty_cache(tmp_path):
    code = (
        "from cellflow.numeric import labels; import numpy as np, sys\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "cells = labels.instances_from_labels(np.arange(12).reshape(3, 4) // 2)\n"
        "print(cells.starts.tolist(), cells.lengths.tolist())\n"
        "print(sum(labels._fill_runs.stats.cache_hits.values()), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    with contextlib.ExitStack() as stack:
        starts = []
        for _ in range(6):
            start = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(start)
            stack.callback(start.kill)
            starts.append(start)
        assert [start.stdout.readline() for start in starts] == ["ready\n"] * 6
        assert not list(tmp_path.rglob("*.nbi"))
        for start in starts:  # now all compile at once
            start.stdin.write("\n")
            start.stdin.flush()
        found = [start.communicate(timeout=300) for start in starts]
        assert [start.returncode for start in starts] == [0] * 6, found
    assert {out for out, _ in found} == {"[2, 4, 6, 8, 10] [2, 2, 2, 2, 2]\n"}
    later = subprocess.run(
        command, env=environment, input="\n", capture_output=True, text=True, timeout=120
    )
    assert later.stdout.endswith(found[0][0])
    assert later.stderr.strip() == "1"  # from the cache that the six have written


def test_blocks_cover_everything_once():
    seen, lock = [], threading.Lock()

    def task(index, start, stop):
        with lock:
            seen.append((index, start, stop))

    _jit.run_blocks(task, 10, 4)
    assert sorted(seen) == [(0, 0, 4), (1, 4, 8), (2, 8, 10)]
    _jit.run_blocks(task, 0, 4)
    assert len(seen) == 3


def test_errors_of_helpers_reach_the_caller():
    def task(index, start, stop):
        if index == 3:
            raise ValueError("block 3")

    for threads in (1, 4):
        _jit.set_threads(threads)
        try:
            with pytest.raises(ValueError, match="block 3"):
                _jit.run_blocks(task, 8, 1)
        finally:
            _jit.set_threads(None)


def test_thread_count(monkeypatch):
    monkeypatch.setenv("CELLFLOW_THREADS", "7")
    assert _jit.thread_count() == 7
    _jit.set_threads(2)
    assert _jit.thread_count() == 2
    _jit.set_threads(None)
    monkeypatch.setenv("CELLFLOW_THREADS", "many")
    with pytest.raises(ConfigError, match="many"):
        _jit.thread_count()
    with pytest.raises(ConfigError):
        _jit.set_threads(0)

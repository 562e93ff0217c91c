"""Imported by what commands are forked from: everything that they load is loaded once, by running each there."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import kill_cases
import kill_checks  # noqa: F401
import tqdm

from cellflow.cli import main


def run_all() -> None:
    """Run each command of the cases that needs no process of its own, in a folder that is gone after."""
    tqdm.tqdm.monitor_interval = 0  # a thread, which a fork would lose
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        os.chdir(folder)
        os.environ["CELLFLOW_CACHE_DIR"] = folder
        kill_cases.know_spots()
        kill_cases.write_source(Path(folder))
        steps = [words for words in kill_cases.STEPS.values() if words]
        cases = [case.words for name, case in kill_cases.CASES.items() if name in kill_cases.WARM]
        for words in (*steps, *cases):
            with redirect_stdout(nowhere), redirect_stderr(nowhere), suppress(SystemExit):
                main(words)
        os.chdir(here)
    logger = logging.getLogger("cellflow")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy all that was loaded here


if "multiprocessing.forkserver" in " ".join(sys.orig_argv):
    run_all()

"""The quick twin of `benchmarks/kills.py`: commands that are killed, or whose disk fails, are simply called again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from faults import hidden

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import forked
import kill_cases
import kills


def disturbed(folder: Path, names: Sequence[str], count: int) -> kills.Bench:
    """Commands that were killed so often each, and whose disk failed so often."""
    forked.start_server("preloaded")
    cases = [kill_cases.CASES[name] for name in names]
    bench = kills.Bench(folder)
    kill_cases.make_states(folder, [case.finds for case in cases])
    for case in cases:
        bench.undisturbed(case)
    kills.kill_all(bench, cases, count * len(cases), seed=3)
    kills.fail_all(bench, cases, count)
    return bench


def test_disturbed_commands_end_as_undisturbed_ones(tmp_path: Path) -> None:
    bench = disturbed(tmp_path, ["prepare", "folds --overwrite"], 2)
    assert [trial for trial in bench.trials if trial.wrong] == []
    assert len(bench.trials) == 8
    assert hidden(bench.work) == []
    case = kill_cases.CASES["folds --overwrite"]
    bench.undisturbed(case)
    (bench.work / ".98781234.tmp.csv").touch()
    (bench.work / "cellflow-data" / "folds.csv").write_text("id")
    found = bench.differences(case)
    assert found[0] == "leftover: .98781234.tmp.csv"
    assert found[1].startswith("differing: cellflow-data/folds.csv: ")
    assert kills.unreadable(bench.work) == []
    (bench.work / "cellflow-data" / "dataset.json").write_text("{")
    assert kills.unreadable(bench.work)[0].startswith("unreadable: cellflow-data/dataset.json: ")


@pytest.mark.slow
def test_more_commands_and_a_disk_that_is_really_full(tmp_path: Path) -> None:
    names = ["train", "oof again", "pseudo", "report"]
    bench = disturbed(tmp_path, names, 2)
    with bench.own_disk() as mounted:  # only root may mount
        for name in names if mounted else ():
            bench.fill(kill_cases.CASES[name], 2)
    assert [trial for trial in bench.trials if trial.wrong] == []

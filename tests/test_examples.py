"""The examples in the docstrings of public names run, and what they show is what comes out."""

from __future__ import annotations

import doctest
import inspect
import os
import shutil
from pathlib import Path

import pytest

import cellflow
from cellflow.config import TrainConfig

ELSEWHERE = {"demo", "FLOW_SCALE"}
"""The first is run by `test_demo.py`, which looks at all that it writes; the other is a number."""
ON_A_RUN = {name for name, home in cellflow._HOME.items() if home.startswith("engine.")}


@pytest.fixture
def workplace(
    predicted_once: TrainConfig,
    second_once: TrainConfig,
    tiny_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder that such examples speak of: a dataset, two runs that are predicted out of fold, images."""
    for run, name in ((predicted_once, "exp"), (second_once, "second")):
        shutil.copytree(
            run.runs_dir / run.name, tmp_path / "runs" / name, copy_function=link_or_copy
        )
    shutil.copytree(predicted_once.data, tmp_path / "cellflow-data")
    shutil.copytree(tiny_source / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)


def link_or_copy(source: str, target: str) -> None:
    """Copy a file; a network is linked, which is large, and only ever replaced as a whole."""
    if source.endswith(".pt"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.mark.parametrize("name", sorted(ON_A_RUN - ELSEWHERE))
@pytest.mark.usefixtures("workplace")
def test_examples_on_a_run(name: str) -> None:
    run_examples(name)


@pytest.mark.parametrize("name", sorted(set(cellflow.__all__) - ON_A_RUN - ELSEWHERE))
def test_examples(name: str) -> None:
    run_examples(name)


def run_examples(name: str) -> None:
    """Run the examples of a public name, and of its methods, with nothing at hand but what they import."""
    value = getattr(cellflow, name)
    module = inspect.getmodule(value)
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    cases = [case for case in finder.find(value, name, module, globs={}) if case.examples]
    assert cases, f"{name} has no examples"
    for case in cases:
        shown: list[str] = []
        failed = doctest.DocTestRunner().run(case, out=shown.append).failed
        assert not failed, "".join(shown)

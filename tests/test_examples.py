"""The examples in the docstrings of public names run, and public names have examples."""

from __future__ import annotations

import doctest
import inspect

import pytest

import cellflow

WITHOUT = {
    "CalibrateConfig", "ChainConfig", "ChecksConfig", "CompareConfig", "DemoConfig", "EnsembleConfig",
    "FoldsConfig", "GridConfig", "InferenceConfig", "MaskConfig", "MaskOverrides", "ModelConfig",
    "NotebookConfig", "OofConfig", "OptimConfig", "OutputConfig", "PredictConfig", "PrepareConfig",
    "PruneConfig", "PublishConfig", "QueueConfig", "RunsConfig", "RuntimeConfig", "SamplingConfig",
    "ScoreConfig", "TrackingConfig", "TrainConfig",
    "calibrate", "compare_runs", "demo", "ensemble", "oof",
    "predict", "publish", "run_chain", "run_queue",
    "train", "write_notebook",
}  # fmt: skip
"""Names that have no examples yet: take a name out when it gets some; put none in."""


@pytest.mark.parametrize("name", [name for name in cellflow.__all__ if name != "FLOW_SCALE"])
def test_examples(name: str) -> None:
    value = getattr(cellflow, name)
    module = inspect.getmodule(value)
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    cases = [case for case in finder.find(value, name, module) if case.examples]
    assert bool(cases) == (name not in WITHOUT), f"{name}: examples, or the set WITHOUT, are behind"
    for case in cases:
        shown: list[str] = []
        failed = doctest.DocTestRunner().run(case, out=shown.append).failed
        assert not failed, "".join(shown)

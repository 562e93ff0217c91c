from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cellflow import cli
from cellflow.config import (
    CalibrateConfig,
    EnsembleConfig,
    OutputConfig,
    RuntimeConfig,
    TrainConfig,
    check_config,
)
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.runs.thresholds import read_thresholds
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.validation.member_choice import MIN_GAIN, choose_members
from cellflow.errors import ConfigError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.nn.precision import choose_device
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
Scores = NDArray[np.float64]


def table_of(count: int, images: int, seed: int) -> dict[tuple[int, ...], Scores]:
    """A score of every image for every subset of members."""
    rng = np.random.default_rng(seed)
    subsets = [
        subset
        for size in range(1, count + 1)
        for subset in itertools.combinations(range(count), size)
    ]
    return {subset: rng.uniform(size=images) + 0.1 * len(subset) for subset in subsets}


def slow_choice(table: dict[tuple[int, ...], Scores], count: int, rows: list[int]) -> list[int]:
    kept: list[int] = []
    last = -np.inf
    while True:
        best, at = -np.inf, -1
        for member in range(count):
            if member not in kept:
                mean = np.mean([table[tuple(sorted([*kept, member]))][row] for row in rows])
                if mean > best:
                    best, at = mean, member
        if at < 0 or best < last + (MIN_GAIN if kept else -np.inf):
            return kept
        kept.append(at)
        last = best


@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_twin(seed: int) -> None:
    table = table_of(4, 9, seed)
    found = choose_members(4, table.__getitem__, [str(row) for row in range(9)], splits=5)
    assert list(found.kept) == slow_choice(table, 4, list(range(9)))
    for size, score in enumerate(found.scores, 1):
        assert score == pytest.approx(table[tuple(sorted(found.kept[:size]))].mean())
    assert found.every == pytest.approx(table[0, 1, 2, 3].mean())


def test_members_of_equal_worth_flatter_and_a_clear_one_does_not() -> None:
    """Noise only: what is chosen is no better than any other, so its advantage on the images is all bias."""
    groups = [f"g{row // 2}" for row in range(24)]
    biases, advantages = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = 0.1 * rng.normal(size=(5, 24))
        found = choose_members(
            5, lambda kept, noise=noise: noise[list(kept)].mean(0), groups, splits=20
        )
        biases.append(found.bias)
        advantages.append(found.scores[-1])  # the truth is 0
    assert np.mean(advantages) > 0.02
    assert np.mean(advantages) < np.mean(biases) < 2.5 * np.mean(advantages)

    clear = np.array([0.1, 0.9, 0.2])
    found = choose_members(3, lambda kept: np.full(24, clear[list(kept)].mean()), groups)
    assert (found.kept, found.bias) == ((1,), 0)


def test_one_group_cannot_tell_the_bias() -> None:
    found = choose_members(2, lambda kept: np.array([0.5, 0.5]), ["a", "a"])
    assert found.to_dict(["x", "y"])["selection_bias"] is None
    assert found.to_dict(["x", "y"])["left_out"] == ["y"]  # adds nothing


def test_one_run_leaves_nothing_to_choose() -> None:
    with pytest.raises(ConfigError, match="name two or more"):
        check_config(CalibrateConfig(runs=("exp",), greedy=True))


def rewrite_flows(
    config: TrainConfig, name: str, change: Callable[[Scores], Scores], noise: float, seed: int
) -> None:
    """Out-of-fold flows made of the truth, as if the run's models had found them."""
    dataset, rng = Dataset.open(config.data), np.random.default_rng(seed)
    store = FlowStore(RunFolder(config.runs_dir / name).flows, mode="a")
    for image in dataset.ids:
        labels = dataset.labels(image)
        flow = change(FLOW_SCALE * labels_to_flows(labels))
        flow = flow + rng.normal(scale=noise, size=flow.shape)
        cellprob = np.where(labels > 0, 4.0, -4.0) + rng.normal(scale=noise, size=labels.shape)
        facts = store.facts(image)
        store.write(image, flow.astype(np.float32), cellprob.astype(np.float32), **facts)


@pytest.mark.parametrize("second", ["helps", "harms"])
def test_runs_that_harm_are_left_out_of_the_ensemble(
    two_runs: TrainConfig,
    tmp_path: Path,
    second: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the command line to the masks."""
    rewrite_flows(two_runs, "tiny", lambda flow: flow, 2.0, 0)
    rewrite_flows(two_runs, "second", lambda flow: flow if second == "helps" else -flow, 2.0, 1)
    places = f"--runs_dir {two_runs.runs_dir} --ensembles_dir {tmp_path / 'ensembles'}"
    grid = "--start_threshold 0 --n_thresholds 1 --flow_thresholds 0 --min_sizes 15"
    with pytest.raises(SystemExit) as caught:
        cli.main(f"calibrate tiny second --greedy {places} {grid} --device cpu".split())
    assert not caught.value.code
    text = capsys.readouterr().out
    record = tmp_path / "ensembles" / "second+tiny" / "ensemble.json"
    thresholds = read_thresholds(record)
    choice = thresholds.facts["member_choice"]
    names = ["tiny", "second"] if second == "helps" else ["tiny"]
    assert sorted(choice["kept"]) == sorted(names)
    hashes = [
        hash_file(RunFolder(two_runs.runs_dir / name).fold(fold).best)
        for name in names
        for fold in (0, 1)
    ]
    assert sorted(thresholds.members) == sorted(hashes)
    assert ("left out: second" if second == "harms" else "left out: none") in text
    assert "how much this choice flatters" in text
    # in whatever order the runs are named, and with nothing more to say
    config = EnsembleConfig(
        runs=("second", "tiny"),
        images=(two_runs.data / "images",),
        runs_dir=two_runs.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
        output=OutputConfig(out=tmp_path / "predictions"),
        runtime=CPU,
    )
    result = ensemble(config)
    assert result.members == 2 * len(names)
    assert result.folder.name == "second+tiny"
    opened = open_models(
        ["second", "tiny"],
        Machine(choose_device("cpu")),
        runs_dir=two_runs.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
    )
    assert {member.hash for member in opened.members} == set(hashes)
    typed = open_models(
        ["second@round", "tiny"],
        Machine(choose_device("cpu")),
        runs_dir=two_runs.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
    )
    assert len(typed.members) == 4  # who asks for a run for one type gets it
    assert not result.failed

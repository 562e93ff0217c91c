"""Files of experiments: lists, grids, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellflow.engine.experiments.experiment_file import read_experiments
from cellflow.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "season.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_list_grid_and_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        defaults: {data: elsewhere, n-epochs: 7, k: 3}
        experiments:
          - name: base
          - name: adam
            optimizer: adamw
            n_epochs: 9
            grid: {learning_rate: [0.003, 1e-2]}
        grid: {seed: [0, 1]}
        """,
    )
    found = read_experiments(path)
    assert [item.name for item in found] == [
        "base_seed-0", "base_seed-1",
        "adam_seed-0_learning_rate-0.003", "adam_seed-0_learning_rate-1e-2",
        "adam_seed-1_learning_rate-0.003", "adam_seed-1_learning_rate-1e-2",
    ]  # fmt: skip
    assert all(item.config.train.name == item.name for item in found)
    assert all(item.config.train.data == Path("elsewhere") for item in found)
    assert {item.config.k for item in found} == {3}
    last = found[-1].config.train
    assert (last.seed, last.optim.learning_rate, last.optim.n_epochs) == (1, 0.01, 9)
    assert found[0].config.train.optim.n_epochs == 7
    assert not any(item.config.train.debug for item in found)
    assert all(item.config.train.debug for item in read_experiments(path, debug=True))


def test_a_grid_alone(tmp_path: Path) -> None:
    found = read_experiments(write(tmp_path, "grid: {pretrained_model: [none], seed: [3]}"))
    assert [item.name for item in found] == ["exp_pretrained_model-none_seed-3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found nothing"),
        ("n_epochs: 3", "expected defaults, experiments, grid, found n_epochs"),
        ("experiments: {name: a}", "experiments must be a list"),
        ("experiments: [a]", "experiment 1 must have lines of NAME: VALUE"),
        ("experiments: [{name: a}, {name: a}]", "must differ, found a more than once"),
        ("grid: {seed: 1}", "such as seed: [1, 2], found 1"),
        ("experiments: [{name: a, sed: 1}]", "experiment a has settings that do not fit"),
        ("experiments: [{name: a, n_epochs: 0}]", "experiment a: --n_epochs must be at least 1"),
        ("experiments: [{name: a/b}]", "--name may have letters"),
        ("experiments: [", "cannot be read"),
        ("experiments: [{name: a, comment: 2026-13-01}]", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"season\.yaml") as caught:
        read_experiments(path)
    assert words in str(caught.value)


def test_sections_of_layers_are_merged(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        defaults: {optim: {n_epochs: 7, batch_size: 3}}
        experiments: [{name: a, optim: {optimizer: adamw}}]
        """,
    )
    (found,) = read_experiments(path)
    optim = found.config.train.optim
    assert (optim.n_epochs, optim.batch_size, optim.optimizer) == (7, 3, "adamw")


def test_a_sign_is_part_of_a_name(tmp_path: Path) -> None:
    found = read_experiments(write(tmp_path, "grid: {cellprob_threshold: [-1, 1]}"))
    assert [item.name for item in found] == [
        "exp_cellprob_threshold--1",
        "exp_cellprob_threshold-1",
    ]


def test_places_are_those_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLFLOW_HOST", "jarvislabs")
    (found,) = read_experiments(write(tmp_path, "experiments: [{name: a, ensembles_dir: mine}]"))
    assert found.config.train.runs_dir == Path("/home/cellflow/runs")
    assert found.config.predictions_dir == Path("/home/cellflow/predictions")
    assert found.config.ensembles_dir == Path("mine")

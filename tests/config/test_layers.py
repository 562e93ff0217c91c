from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from cellflow.config import (
    CalibrateConfig,
    ChainConfig,
    DemoConfig,
    EnsembleConfig,
    FoldsConfig,
    GridConfig,
    MaskConfig,
    OofConfig,
    PredictConfig,
    PrepareConfig,
    ScoreConfig,
    TrainConfig,
    check_config,
    config_to_dict,
)
from cellflow.config.layers import blank_config, check_complete, with_settings
from cellflow.errors import ConfigError

CONFIGS = [
    CalibrateConfig(grid=GridConfig(flow_thresholds=(0.4, 0.0), min_sizes=(15,))),
    ChainConfig(images=Path("x/y"), train=TrainConfig(fold=("0", "2"), time_budget="8h")),
    DemoConfig(),
    EnsembleConfig(images=Path("i"), runs=("a", "b@cort")),
    FoldsConfig(group="well"),
    OofConfig(diameter=31.5),
    PredictConfig(images=Path("i")),
    PrepareConfig(source=Path("s")),
    ScoreConfig(pred="p"),
    TrainConfig(mask=MaskConfig(cellprob_threshold=-0.5)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_is_written_is_read_back(config: Any) -> None:
    text = yaml.safe_dump(config_to_dict(config))
    assert with_settings(blank_config(type(config)), yaml.safe_load(text), "file") == config


def test_flat_names_and_sections_are_equal() -> None:
    text = """
    n-epochs: 30
    learning_rate: 1e-3
    fold: 2
    dir: elsewhere
    amp: off
    optimizer: adamw
    pretrained_model: none
    """
    flat = with_settings(ChainConfig(), yaml.safe_load(text), "file")
    sections = {
        "train": {
            "fold": ["2"], "data": "elsewhere", "optim": {"n_epochs": 30, "learning_rate": 0.001},
            "runtime": {"amp": "off"},
        },
        "optimizer": "adamw",
    }  # fmt: skip
    assert with_settings(ChainConfig(), sections, "file") == flat
    assert flat.train.optim.n_epochs == 30
    assert flat.train.optim.learning_rate == 0.001
    assert flat.train.fold == ("2",)
    assert flat.train.data == Path("elsewhere")
    assert flat.train.runtime.amp == "off"
    assert flat.train.sampling == TrainConfig().sampling


def test_later_layers_go_on_top_and_leave_the_rest() -> None:
    first = with_settings(TrainConfig(), {"n_epochs": 5, "seed": 3, "momentum": 0.5}, "one")
    second = with_settings(first, {"seed": 4, "momentum": None}, "two")
    assert (second.optim.n_epochs, second.seed, second.optim.momentum) == (5, 4, None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lerning_rate": 1}, "lerning_rate: no such setting; did you mean learning_rate"),
        ({"optim": {"seed": 1}}, "optim.seed: no such setting"),
        ({"n_epochs": 1.5}, "n_epochs: expected a whole number, found 1.5"),
        ({"n_epochs": True}, "n_epochs: expected a whole number, found True"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number, found 'fast'"),
        ({"balance": 1}, "balance: expected true or false, found 1"),
        ({"schedule": "linear"}, "schedule: expected one of cellpose, step, cosine, constant"),
        ({"data": 3}, "data: expected a path, found 3"),
        ({"optim": 3}, "optim: expected"),
        ({"n_epochs": None}, "n_epochs: expected a whole number, found None"),
        ({"n_epochs": [1]}, "n_epochs: expected a whole number"),
        ({"learning_rate": 10**400}, "learning_rate: expected a number, found 1000"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=r"some\.yaml") as caught:
        with_settings(TrainConfig(), values, "some.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["masks", "cells", "submission", "outlines"])
def test_what_was_a_setting_of_its_own_is_named_as_an_export(name: str) -> None:
    """As ensemble.yaml of earlier versions has it."""
    with pytest.raises(ConfigError) as caught:
        with_settings(PredictConfig(images=()), {"output": {name: True}}, "ensemble.yaml")
    assert f"output.{name}: no such setting; {name} is one of the list output.export now" in str(
        caught.value
    )
    assert f"export: [{name}]" in str(caught.value)


def test_all_problems_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        with_settings(TrainConfig(), {"n_epochs": "x", "sed": 1}, "file")
    assert "n_epochs" in str(caught.value) and "sed" in str(caught.value)


def test_what_must_be_given_is_missing_until_it_is() -> None:
    blank = blank_config(EnsembleConfig)
    assert blank.images is tyro.MISSING
    with pytest.raises(ConfigError, match="experiment a: images must be given"):
        check_complete(blank, "experiment a")
    full = with_settings(blank, {"images": "i"}, "file")
    check_complete(full, "experiment a")
    assert full == dataclasses.replace(EnsembleConfig(images=Path("i")))


def test_a_whole_number_of_any_size_is_one() -> None:
    assert with_settings(TrainConfig(), {"seed": 10**400}, "file").seed == 10**400


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_whole_number(value: float) -> None:
    with pytest.raises(ConfigError, match="n_epochs: expected a whole number"):
        with_settings(TrainConfig(), {"n_epochs": value}, "file")


@pytest.mark.parametrize(
    "name", ["a/b", "..", "", "x" * 201, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 101]
)
def test_names_that_no_folder_can_have(name: str) -> None:
    """A grid of many settings makes long ones, of which file systems take 255 bytes."""
    check_config(TrainConfig(data=Path("data"), name="x" * 200))
    with pytest.raises(ConfigError, match=r"--name may have .* 200 bytes at most, found") as caught:
        check_config(TrainConfig(data=Path("data"), name=name))
    assert len(str(caught.value)) < 400

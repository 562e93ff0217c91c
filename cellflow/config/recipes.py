"""Recipes: what a training does where no setting says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from cellflow.config.training import TrainConfig

__all__ = ["CELLPOSE", "filled", "plain_training"]

CELLPOSE: Mapping[str, Any] = {
    "optimizer": "sgd",
    "schedule": "cellpose",
    "ema": 0.0,
    "batch_size": 8,
    "rescale": "image",
    "intensity": 0.0,
    "targets": "warp",
    "eval_diameter": "dataset",
}
"""Cellpose's own, exactly."""

Config = TypeVar("Config")


def filled(config: TrainConfig, recipe: Mapping[str, Any]) -> TrainConfig:
    """A config in which settings that were left open have the values of a recipe."""
    return replace(
        _filled(config, recipe),
        optim=_filled(config.optim, recipe),
        sampling=_filled(config.sampling, recipe),
    )


def plain_training() -> TrainConfig:
    """What a training does under Cellpose's recipe where nothing is set: what a run did otherwise is worth showing."""
    return filled(TrainConfig(), CELLPOSE)


def _filled(config: Config, recipe: Mapping[str, Any]) -> Config:
    left_open = {
        item.name: recipe[item.name]
        for item in fields(config)  # type: ignore[arg-type]
        if item.name in recipe and getattr(config, item.name) is None
    }
    return replace(config, **left_open)  # type: ignore[type-var]

"""A file of experiments: a list, a grid, or both, and what all of them share.

::

    defaults:                    # settings of `cellflow run` by the names of their flags
      data: cellflow-data
      n_epochs: 100
    experiments:                 # each with what is special to it
      - name: baseline
      - name: adam
        optimizer: adamw
        grid: {learning_rate: [0.003, 0.01]}
    grid:                        # every combination, for each of the experiments
      seed: [0, 1]
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellflow.config import ChainConfig, check_config
from cellflow.config.layers import blank_config, check_complete, with_settings
from cellflow.environment.config_defaults import with_host_defaults
from cellflow.errors import ConfigError
from cellflow.storage.config_file import read_yaml, yaml_kind
from cellflow.storage.sizes import few_lines
from cellflow.types import shorten

__all__ = ["Experiment", "read_experiments"]

_MOST = 2_000
"""Experiments of a file."""
_ENOUGH, _TOLD, _LETTERS = 50, 10, 100
"""Problems with which reading ends; those that a message lists; letters of a name in it."""
_PARTS = ("defaults", "experiments", "grid")


@dataclass(frozen=True)
class Experiment:
    """One experiment of a queue: its name, which is that of its run, and all its settings."""

    name: str
    config: ChainConfig


def read_experiments(path: Path, *, debug: bool = False) -> list[Experiment]:
    """Experiments of a file, in its order.

    Parameters
    ----------
    path : Path
        YAML.
    debug : bool
        Make all of them debug runs.

    Raises
    ------
    ConfigError
        Naming the experiment and every setting that does not fit.
    """
    content = _read(path)
    defaults, grid = (_mapping(content.get(part), part, path) for part in ("defaults", "grid"))
    listed = content.get("experiments") or [{}]
    if not isinstance(listed, list):
        raise ConfigError(f"{path}: experiments must be a list, found {yaml_kind(listed)}")
    found, problems, names = list[Experiment](), list[str](), list[str]()
    plain = with_host_defaults(blank_config(ChainConfig), "run")
    for number, item in enumerate(listed, 1):
        if len(problems) >= _ENOUGH:
            break
        try:
            own = _mapping(item, f"experiment {number}", path)
            both = {**grid, **_mapping(own.pop("grid", None), f"grid of experiment {number}", path)}
            combinations = list(_combinations(both, path, len(names)))
        except ConfigError as error:
            problems.append(str(error))
            continue
        for values, suffix in itertools.takewhile(lambda _: len(problems) < _ENOUGH, combinations):
            layers = (defaults, own, values)
            names.append(_name(layers, suffix))
            try:
                found.append(_experiment(plain, layers, names[-1], path, debug))
            except ConfigError as error:
                problems.append(str(error))
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        problems.append(
            f"{path}: the names of experiments must differ, found {', '.join(twice)} more than once"
        )
    if problems:
        raise _all_of(list(dict.fromkeys(problems)))
    return found


def _all_of(problems: list[str]) -> ConfigError:
    """One error of all, of which the first are told: a grid has the same in every experiment."""
    if len(problems) == 1:
        return ConfigError(problems[0])
    more = " or more" if len(problems) >= _ENOUGH else ""
    return ConfigError(f"{len(problems)}{more} problems:\n{few_lines(problems, _TOLD)}")


def _name(layers: tuple[dict[str, Any], ...], suffix: str) -> str:
    names = [str(layer["name"]) for layer in layers if "name" in layer]
    return f"{names[-1] if names else 'exp'}{suffix}"


def _experiment(
    config: ChainConfig, layers: tuple[dict[str, Any], ...], name: str, path: Path, debug: bool
) -> Experiment:
    source = f"{path}: experiment {shorten(name, _LETTERS)}"
    for layer in (*layers, {"name": name}, {"debug": True} if debug else {}):
        config = with_settings(config, layer, source)
    check_complete(config, source)
    try:
        check_config(config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return Experiment(name, config)


def _combinations(
    grid: Mapping[str, Any], path: Path, before: int
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every choice of one value per setting, and what it adds to the name."""
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"{path}: grid wants a list of values, such as {key}: [1, 2], found {values!r}"
            )
    count = before + math.prod(map(len, grid.values()))
    if count > _MOST:
        raise ConfigError(f"{path}: found {count:,} experiments, at most {_MOST:,} are read")
    for choice in itertools.product(*grid.values()):
        parts = [f"_{key}-{_in_name(value)}" for key, value in zip(grid, choice, strict=True)]
        yield dict(zip(grid, choice, strict=True)), "".join(parts)


def _in_name(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", str(value)).rstrip("-") or "none"


def _read(path: Path) -> dict[str, Any]:
    content = _mapping(read_yaml(path, str(path)), "the file", path)
    unknown = sorted(set(content) - set(_PARTS))
    if unknown or not content:
        raise ConfigError(
            f"{path}: expected {', '.join(_PARTS)}, found {', '.join(unknown) or 'nothing'}. "
            "Settings that all experiments share belong under defaults."
        )
    return content


def _mapping(value: Any, what: str, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: {what} must have lines of NAME: VALUE, found {yaml_kind(value)}"
        )
    return {str(key).replace("-", "_"): item for key, item in value.items()}

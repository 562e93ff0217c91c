"""Thresholds per cell type with what they were made from, and the file that keeps them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellflow.config import MaskConfig, MaskOverrides, check_config
from cellflow.errors import RunError
from cellflow.storage.atomic import write_json
from cellflow.storage.records import dict_or_empty, load_json
from cellflow.types import one_line

__all__ = [
    "Thresholds",
    "find_thresholds",
    "mask_from_dict",
    "read_thresholds",
    "write_thresholds",
]

SCHEMA = "cellflow-thresholds"
VERSION = 1


@one_line
@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the mask step."""

    shared: MaskConfig
    """For images of unknown or unsure type, and of types that have none of their own."""
    per_type: Mapping[str, MaskConfig] = field(default_factory=dict)
    """By cell type."""
    source: str = ""
    """What they were fitted on, for people; empty for those of the training."""
    members: tuple[str, ...] = ()
    """Hashes of the model files whose flows they were fitted on."""
    policy: str = "dataset"
    """Diameter policy of these flows, and so of predictions that use the thresholds."""
    diameter: float | None = None
    """In pixels, where one was given for all images instead."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Settings, scores and curves, JSON types only."""

    def override(self, overrides: MaskOverrides) -> Thresholds:
        """The same with those settings replaced, for all types, that were given."""
        given = {k: v for k, v in dataclasses.asdict(overrides).items() if v is not None}
        if not given:
            return self
        per_type = {name: overrides.apply(mask) for name, mask in self.per_type.items()}
        words = ", ".join(f"{name} {value}" for name, value in given.items())
        return dataclasses.replace(
            self,
            shared=overrides.apply(self.shared),
            per_type=per_type,
            source=f"{self.source}; given: {words}",
        )

    def of(self, cell_type: str) -> MaskConfig:
        """Thresholds of a cell type."""
        return self.per_type.get(cell_type, self.shared)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "source": self.source,
            "members": list(self.members),
            "policy": self.policy,
            "diameter": self.diameter,
            "shared": dataclasses.asdict(self.shared),
            "per_type": {name: dataclasses.asdict(mask) for name, mask in self.per_type.items()},
            **self.facts,
        }


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Write thresholds as JSON, atomically."""
    write_json(path, thresholds.to_dict())


def read_thresholds(path: Path) -> Thresholds:
    """Read thresholds; refused if the file is damaged, of another schema, or holds values out of range."""
    try:
        plain = dict_or_empty(load_json(path))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Make it with: cellflow calibrate"
        ) from None
    found = (plain.get("schema"), plain.get("version"))
    if found != (SCHEMA, VERSION):
        raise RunError(
            f"{path}: expected the schema {SCHEMA} of version {VERSION}, found {found[0]} of version "
            f"{found[1]}. Make it again with: cellflow calibrate"
        )
    known = (
        "schema", "version", "source", "members", "policy", "diameter", "shared", "per_type",
    )  # fmt: skip
    try:
        shared = mask_from_dict(plain["shared"])
        per_type = {str(name): mask_from_dict(mask) for name, mask in plain["per_type"].items()}
        members = tuple(map(str, plain["members"]))
        policy, diameter = str(plain["policy"]), plain["diameter"]
        diameter = None if diameter is None else float(diameter)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(
            f"{path}: expected thresholds as cellflow calibrate writes them, found {error}. Make it "
            "again with: cellflow calibrate"
        ) from None
    facts = {key: value for key, value in plain.items() if key not in known}
    return Thresholds(
        shared, per_type, str(plain.get("source", "")), members, policy, diameter, facts
    )


def find_thresholds(path: Path) -> Thresholds | None:
    """The same; None where there are none that can be read."""
    try:
        return read_thresholds(path)
    except RunError:
        return None


def mask_from_dict(values: Any) -> MaskConfig:
    """Thresholds from a file; what is not there is as the defaults have it, and what is wrong is a ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"{values!r:.80} for thresholds")
    known, given = dataclasses.asdict(MaskConfig()), {}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"the unknown setting {name!r:.80}")
        kind = type(known[name])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, kind) if kind is bool else number and kind(value) == value):
            raise ValueError(f"{value!r:.80} as {name}")
        given[name] = kind(value)
    mask = MaskConfig(**given)
    check_config(mask)
    return mask


ALL_TYPES = "all types"
"""Name of what is shared, beside the cell types."""


AXIS_NAMES = ("cellprob_threshold", "flow_threshold", "min_size")
"""Settings along the axes of the grid."""

"""What a run's JSON files say of its folds and of its out-of-fold predictions: one reader for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from cellflow.config.metrics import SelectMetric
from cellflow.config.shared import POLICIES, Policy
from cellflow.storage.records import dict_or_empty, load_json, number_or_none, read_json
from cellflow.storage.run_folder import FoldFolder, RunFolder, former_hashes

__all__ = [
    "FoldSummary",
    "OofRecord",
    "find_oof_record",
    "read_fold_summary",
    "read_oof_record",
    "select_metric_of",
    "with_later_settings",
]


_NUMBERS = ("best_score", "best_epoch", "epochs", "best_value")


@dataclass(frozen=True)
class FoldSummary:
    """How the training of a fold ended (`summary.json`), as far as that is known."""

    finished: str = ""
    """Why it is complete ("epochs", "patience"); empty while it is not."""
    best_score: float | None = None
    best_epoch: float | None = None
    epochs: float | None = None
    """Those trained."""
    best_value: float | None = None
    """Metric that made it the best."""


@dataclass(frozen=True)
class OofRecord:
    """What made the out-of-fold predictions of a run (`oof.json`)."""

    models: Mapping[int, str]
    """Hash of the model of every fold."""
    policy: Policy
    """Diameter policy of the pass that was kept."""
    policies: tuple[str, ...]
    """All that were compared."""
    diameter: float | None
    """In pixels, where one was given for all images instead."""
    mask: Mapping[str, Any]
    config_hash: str
    """Hash of the config of the run."""
    choice: Mapping[str, Any] = field(default_factory=dict)
    """Why that policy was kept, for `diameters_text`; empty in records from before that was kept."""

    def is_of_this_length(self, record: Mapping[str, Any]) -> bool:
        """Whether they were made since the run was last lengthened, from the record of the run."""
        return self.config_hash not in former_hashes(record)


def select_metric_of(record: Mapping[str, Any]) -> str:
    """Metric that chooses the models of a run, from its record; the competition score where nothing is said."""
    found = dict_or_empty(record.get("config")).get("select_metric")
    return str(found) if found in get_args(SelectMetric) else "competition"


def read_fold_summary(files: FoldFolder) -> FoldSummary:
    """How the training of a fold ended; what cannot be read is not known."""
    facts = read_json(files.summary) or {}
    finished = facts.get("finished")
    numbers = [number_or_none(facts.get(key)) for key in _NUMBERS]
    return FoldSummary(finished if isinstance(finished, str) else "", *numbers)


def read_oof_record(run: RunFolder) -> OofRecord:
    """What made the out-of-fold predictions of a run; an OSError or a ValueError where that cannot be read."""
    facts = load_json(run.oof_record)
    try:
        models = {int(fold): str(digest) for fold, digest in facts["models"].items()}
        policy, diameter = facts["policy"], facts.get("diameter")
        diameter = None if diameter is None else float(diameter)
        policies = tuple(facts.get("policies", {}))
        mask = dict(facts.get("mask", {}))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{error!r:.80}") from None
    if policy not in POLICIES:
        raise ValueError(f"{policy!r:.80} as policy")
    config_hash = str(facts.get("config_hash"))
    choice = dict_or_empty(facts.get("diameters"))
    return OofRecord(models, cast("Policy", policy), policies, diameter, mask, config_hash, choice)


def find_oof_record(run: RunFolder) -> OofRecord | None:
    """The same; None where there is none that can be read."""
    try:
        return read_oof_record(run)
    except (OSError, ValueError):
        return None


def with_later_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a record, with what runs from before a setting existed did."""
    return {"select_metric": "competition", **config}

"""Thresholds and diameter policy of a network that has seen all images: those of the run whose folds vouch for it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from cellflow.config.shared import Policy
from cellflow.engine.runs.contents import run_policy, vouching_run
from cellflow.engine.runs.thresholds import Thresholds, read_thresholds
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder, is_final_record

__all__ = ["policy_of", "vouched_thresholds"]

_log = logging.getLogger(__name__)


def policy_of(run: RunFolder, files: Sequence[Path]) -> tuple[Policy, float | None]:
    """Where diameters come from, as the out-of-fold pass of the run, or of one that vouches for it, found best."""
    if not is_final_record(run.read_record()):
        return run_policy(run, list(map(hash_file, files)))
    vouching = vouching_run(run)
    if vouching is not None and vouching.oof_record.exists():
        return run_policy(vouching, _fold_hashes(vouching))
    return run_policy(run)  # of a published one, which has it with it


def vouched_thresholds(run: RunFolder) -> Thresholds | None:
    """Thresholds of the run whose folds vouch for a final network; else those that were published with it."""
    vouching = vouching_run(run)
    found = None
    if vouching is not None and vouching.thresholds.exists():
        found = read_thresholds(vouching.thresholds)
        if set(found.members) != _fold_hashes(vouching):
            _log.warning("%s was made with other models and is not used", vouching.thresholds)
            found = None
    if found is None and run.thresholds.exists():
        found = read_thresholds(run.thresholds)
    if found is None:
        return None
    return dataclasses.replace(found, source=f"{found.source}, whose folds vouch for this network")


def _fold_hashes(run: RunFolder) -> set[str]:
    """Hashes of the best models of a run's folds."""
    return {hash_file(files.best) for files in run.fold_folders() if files.best.is_file()}

"""Open runs and model files as members, with the thresholds and policies that go with them."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from cellflow.config import MaskConfig, MaskOverrides
from cellflow.engine.members import Member, load_member
from cellflow.engine.runs import check_models, run_mask
from cellflow.engine.segment import POLICIES, Policy
from cellflow.engine.styles import read_style_models
from cellflow.engine.thresholds import Thresholds, read_thresholds
from cellflow.errors import CellflowError, RunError
from cellflow.nn.checkpoint import find_model_file
from cellflow.numeric.averaging import VARIANTS, Variant
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import FoldFolder, RunFolder, find_run
from cellflow.style_models import StyleModels

__all__ = ["Opened", "ensemble_record", "open_models", "run_policy"]

_log = logging.getLogger(__name__)

NOT_CALIBRATED = "those of the training, not calibrated"
SINGLE_MODELS = "those of single models: not calibrated for the ensemble"


@dataclass(frozen=True)
class Opened:
    """Members with what goes with them.

    Attributes
    ----------
    name : str
        Names of the runs or files, joined by +.
    members : tuple of Member
        All of them.
    thresholds : Thresholds
        Calibrated for exactly these members where there is such a calibration; `source` says so.
    policy : {"dataset", "type", "image"}
        Where diameters come from.
    average : {"plain", "cellprob", "direction"}
        How flows are averaged.
    scores : tuple of float
        Best score of each member on its validation images; nan for foreign files.
    """

    name: str
    members: tuple[Member, ...]
    thresholds: Thresholds
    policy: Policy
    average: Variant
    scores: tuple[float, ...]


@dataclass(frozen=True)
class _Source:
    """One thing that was named: a run, or a model file with the run it lies in, if any."""

    name: str
    run: RunFolder | None
    files: tuple[Path, ...]
    only_type: str = ""


def open_models(
    names: Sequence[str],
    device: torch.device,
    *,
    runs_dir: Path = Path("runs"),
    ensembles_dir: Path = Path("ensembles"),
    unfinished: bool = False,
    calibrated: bool = True,
    overrides: MaskOverrides | None = None,
) -> Opened:
    """Open runs and model files.

    Parameters
    ----------
    names : sequence of str
        Runs by name or folder, or model files; ``NAME@TYPE`` joins for images of that cell type only.
        Without any the newest run.
    device : torch.device
        Where the networks go.
    runs_dir, ensembles_dir : Path
        Where runs and calibrations of ensembles lie.
    unfinished : bool
        Accept folds whose training has stopped before its last epoch.
    calibrated : bool
        Use calibrated thresholds where there are any.
    overrides : MaskOverrides or None
        Thresholds that were given, and go before all others.

    Raises
    ------
    RunError, CheckpointError
        If there is no such thing, a run is incomplete, or thresholds of a damaged or other schema.
    """
    sources = [_find(name, runs_dir, unfinished) for name in names or (None,)]
    members = tuple(member for source in sources for member in _members(source, device))
    name = "+".join(source.name for source in sources)
    runs = [source.run for source in sources if source.run is not None]
    given = overrides or MaskOverrides()
    record = ensemble_record(ensembles_dir, name)
    found = _calibrated(sources, members, record) if calibrated else None
    thresholds, average = found or (_of_training(runs, given), "plain")
    thresholds = thresholds.override(given)
    scores = tuple(float(member.facts.get("score", "nan")) for member in members)
    return Opened(name, members, thresholds, _common_policy(runs), average, scores)


def ensemble_record(ensembles_dir: Path, name: str) -> Path:
    """File with the members of an ensemble and the thresholds calibrated for them."""
    return ensembles_dir / name / "ensemble.json"


def run_policy(run: RunFolder) -> Policy:
    """Diameter policy that the run's out-of-fold pass chose; without one that of Cellpose."""
    try:
        policy = json.loads(run.oof_record.read_text(encoding="utf-8")).get("policy")
    except (OSError, ValueError, AttributeError):
        return "dataset"
    return cast("Policy", policy) if policy in POLICIES else "dataset"


def _find(name: str | None, runs_dir: Path, unfinished: bool) -> _Source:
    text, _, only_type = (name or "").partition("@")
    if not text or not Path(text).is_file():
        try:
            run = find_run(text or None, runs_dir)
        except RunError as error:
            return _Source(*_model_file(text, error), only_type=only_type)
        models = check_models(run, unfinished=unfinished)
        return _Source(run.name, run, tuple(models.values()), only_type)
    return _Source(*_model_file(text, None), only_type=only_type)


def _model_file(name: str, no_run: RunError | None) -> tuple[str, RunFolder | None, tuple[Path]]:
    """A model file, and the run whose best model it is."""
    try:
        path = find_model_file(name)
    except CellflowError:
        if no_run is not None and "/" not in name:
            raise no_run from None  # lists the runs there are
        raise
    run = RunFolder(path.resolve().parent.parent)
    if path.name == "best.pt" and run.exists():
        return f"{run.name}_{path.resolve().parent.name}", run, (path,)
    return path.stem, None, (path,)


def _members(source: _Source, device: torch.device) -> Iterable[Member]:
    for path in source.files:
        own = source.run is not None
        name = f"{source.name} {path.parent.name.replace('_', ' ')}" if own else str(path)
        styles = _styles(path) if own else None
        yield load_member(path, name, device, styles=styles, only_type=source.only_type)


def _styles(model: Path) -> StyleModels | None:
    """Style models of a run's model file, if they were fitted on this very file."""
    path = FoldFolder(model.parent).styles
    if not path.exists():
        return None
    models = read_style_models(path)
    return models if models.model_hash == hash_file(model) else None


def _calibrated(
    sources: list[_Source], members: tuple[Member, ...], record: Path
) -> tuple[Thresholds, Variant] | None:
    """Thresholds by the rules for ensembles: their own, else those of a run's single models."""
    if record.exists():
        found = read_thresholds(record)
        if sorted(found.members) == sorted(member.hash for member in members):
            average = found.facts.get("average", "plain")
            return found, cast("Variant", average) if average in VARIANTS else "plain"
        _log.warning("%s was calibrated for other members and is not used", record)
    run = sources[0].run
    if len(sources) > 1 or run is None or not run.thresholds.exists():
        return None
    found = read_thresholds(run.thresholds)
    if {member.hash for member in members} <= set(found.members):
        source = SINGLE_MODELS if len(members) > 1 else found.source
        return dataclasses.replace(found, source=source), "plain"
    _log.warning("%s was made with other models and is not used", run.thresholds)
    return None


def _of_training(runs: list[RunFolder], given: MaskOverrides) -> Thresholds:
    """Thresholds that all runs were trained with, where none were given."""
    masks = [given.apply(run_mask(run)) for run in runs] or [MaskConfig()]
    if len(set(masks)) > 1:
        found = "; ".join(f"{run.name}: {mask}" for run, mask in zip(runs, masks, strict=True))
        raise RunError(
            f"The runs were trained with different thresholds ({found}). Calibrate them together with: "
            f"cellflow calibrate {' '.join(run.name for run in runs)}; or say which ones to use: "
            "--cellprob_threshold, --flow_threshold, --min_size and --niter."
        )
    return Thresholds(masks[0], source=NOT_CALIBRATED)


def _common_policy(runs: list[RunFolder]) -> Policy:
    policies: set[Policy] = {run_policy(run) for run in runs}
    if len(policies) == 1:
        return policies.pop()
    if policies:
        _log.warning("the runs chose different diameter policies; that of the data set is used")
    return "dataset"


def describe_members(opened: Opened) -> list[dict[str, Any]]:
    """Names, hashes and diameters of the members, for records."""
    return [
        {
            "name": member.name,
            "hash": member.hash,
            "diam_labels": member.diam_labels,
            **({"only_type": member.only_type} if member.only_type else {}),
        }
        for member in opened.members
    ]

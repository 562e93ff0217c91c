"""Open runs and model files as members, with the thresholds and policies that go with them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from cellflow.config import MaskConfig, MaskOverrides
from cellflow.config.shared import POLICIES, Policy
from cellflow.engine.runs.contents import check_models, run_mask
from cellflow.engine.runs.model_files import find_model_files
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.thresholds import Thresholds, read_thresholds
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.styles import read_style_models
from cellflow.engine.segmentation.vouched import policy_of, vouched_thresholds
from cellflow.errors import CheckpointError, DataError, FoldError, RunError
from cellflow.io.model_archive import is_archive, unpacked_archive
from cellflow.numeric.averaging import VARIANTS, Variant
from cellflow.storage.hashing import hash_file
from cellflow.storage.records import dict_or_empty
from cellflow.storage.run_folder import (
    FoldFolder,
    RunFolder,
    ensemble_record,
    find_run,
    is_final_record,
    joined_name,
)
from cellflow.style_models import StyleModels
from cellflow.types import one_line

__all__ = ["Opened", "check_type", "describe_members", "known_types", "open_models"]

_log = logging.getLogger(__name__)

NOT_CALIBRATED = "those of the training, not calibrated"
SINGLE_MODELS = "those of single models: not calibrated for the ensemble"


@one_line
@dataclass(frozen=True)
class Opened:
    """Members with what goes with them.

    Attributes
    ----------
    name : str
        Names of the runs or files, joined by + (`joined_name`).
    members : tuple of Member
        All of them.
    thresholds : Thresholds
        Calibrated for exactly these members where there is such a calibration; `source` says so.
    policy : {"dataset", "type", "image"}
        Where diameters come from.
    diameter : float or None
        One for all images instead, where out-of-fold predictions and thresholds were made with it.
    average : {"plain", "cellprob", "direction"}
        How flows are averaged.
    scores : tuple of float
        Best score of each member on its validation images; nan for foreign files.
    partial : dict of str to str
        Runs of which not all folds are members, with those that are, such as "fold 1, 3 of 5".
    runs : tuple of RunFolder
        Runs on disk that have a member.
    """

    name: str
    members: tuple[Member, ...]
    thresholds: Thresholds
    policy: Policy
    diameter: float | None
    average: Variant
    scores: tuple[float, ...]
    partial: dict[str, str] = field(default_factory=dict)
    runs: tuple[RunFolder, ...] = ()


@dataclass(frozen=True)
class _Source:
    """One thing that was named: a run, or a model file with the run it lies in, if any."""

    name: str
    run: RunFolder | None
    files: tuple[Path, ...]
    only_type: str = ""
    partial: str = ""


def open_models(
    names: Sequence[str],
    machine: Machine,
    *,
    runs_dir: Path = Path("runs"),
    ensembles_dir: Path = Path("ensembles"),
    unfinished: bool = False,
    calibrated: bool = True,
    overrides: MaskOverrides | None = None,
    foreign: bool = False,
    channels: tuple[int, int] | None = None,
    download: bool = True,
    folds: Sequence[int] = (),
    together: bool = True,
) -> Opened:
    """Open runs and model files.

    Parameters
    ----------
    names : sequence of str
        Runs by name or folder, archives of runs, model files, or models of Cellpose's by name; ``NAME@TYPE``
        joins for images of that cell type only. Without any the newest run.
    machine : Machine
        Where the networks go, and what runs them.
    runs_dir, ensembles_dir : Path
        Where runs and calibrations of ensembles lie.
    unfinished : bool
        Accept folds whose training has stopped before its last epoch. Folds that cannot be taken are left
        out with a warning.
    calibrated : bool
        Use calibrated thresholds where there are any.
    overrides : MaskOverrides or None
        Thresholds that were given, and go before all others.
    foreign : bool
        Whether flows of other origin join, so that thresholds of these members alone do not fit.
    channels : (int, int) or None
        Channels for files of Cellpose, which do not say theirs; by default grey.
    download : bool
        Fetch models of Cellpose's that are not in its folder.
    folds : sequence of int
        Take these folds of runs, in this order; without any all that there are.
    together : bool
        Average the members. Members that are used one by one have thresholds of single models.

    Raises
    ------
    RunError, CheckpointError
        If there is no such thing, a run has no model to take, or thresholds of a damaged or other schema.
    FoldError
        If a run has no model of a fold that was named.
    """
    given = overrides or MaskOverrides()
    with ExitStack() as archives:  # unpacked while they are read
        find = partial(
            _find, runs_dir=runs_dir, unfinished=unfinished, download=download, folds=folds
        )
        named = [find(name, archives) for name in names or (None,)]
        records = _ensemble_records(named, ensembles_dir) if together and calibrated else []
        sources = _that_earned(named, records)
        members = tuple(
            member for source in sources for member in _members(source, machine, channels)
        )
        _check_types(members)
        found = None
        if calibrated:
            several = together and (len(members) > 1 or foreign)
            found = _calibrated(sources, members, [] if foreign else records, several=several)
        thresholds = (found or _of_training(sources, members, given)).override(given)
    average = cast("Variant", thresholds.facts.get("average", "plain"))
    return Opened(
        joined_name(source.name for source in named),
        members,
        thresholds,
        thresholds.policy if thresholds.policy in POLICIES else "dataset",
        thresholds.diameter,
        average if average in VARIANTS else "plain",
        tuple(float(member.facts.get("score", "nan")) for member in members),
        {source.name: source.partial for source in sources if source.partial},
        tuple(item.run for item in sources if item.run is not None and item.run.exists()),
    )


def _find(
    name: str | None,
    archives: ExitStack,
    *,
    runs_dir: Path,
    unfinished: bool,
    download: bool,
    folds: Sequence[int],
) -> _Source:
    text, _, only_type = (name or "").rpartition("@")
    if name and (not text or Path(name).exists()):
        text, only_type = name, ""
    if not text or not Path(text).is_file():
        try:
            run = find_run(text or None, runs_dir)
        except RunError as error:
            return _Source(*_model_file(text, error, download), only_type=only_type)
        return _run_source(run, only_type, unfinished, folds)
    if is_archive(Path(text)):
        folder = archives.enter_context(unpacked_archive(Path(text)))
        return _run_source(RunFolder(folder), only_type, True, folds)  # whoever made it chose
    return _Source(*_model_file(text, None, download), only_type=only_type)


def _run_source(run: RunFolder, only_type: str, unfinished: bool, wanted: Sequence[int]) -> _Source:
    """The models of a run that there are, or those that are wanted."""
    models = check_models(run, unfinished=unfinished, partial=True)
    missing = [fold for fold in wanted if fold not in models]
    if missing:
        raise FoldError(
            f"--fold {missing[0]}: run {run.name!r} has no finished model of it, but those of --fold "
            f"{' '.join(map(str, models))}. --unfinished takes the best model so far of a fold that is still in "
            "training.",
            expected=list(models), found=missing[0],
        )  # fmt: skip
    models = {fold: models[fold] for fold in wanted or models}
    folds = run.read_record()["folds"]
    found = ", ".join(map(str, models))
    partial_ = f"fold {found} of {len(folds)}" if len(models) < len(folds) else ""
    return _Source(run.name, run, tuple(models.values()), only_type, partial_)


def _model_file(
    name: str, no_run: RunError | None, download: bool
) -> tuple[str, RunFolder | None, tuple[Path, ...]]:
    """A model file, or the four of one model; and the run whose best model it is."""
    try:
        files = find_model_files(name, download=download)
    except CheckpointError as error:
        unknown = error.found == name
        if no_run is not None and unknown and "/" not in name:
            raise RunError(f"{no_run} {error}") from None  # lists the runs there are
        raise
    path = files[0]
    if len(files) > 1:
        return Path(name).name, None, files
    run = RunFolder(path.resolve().parent.parent)
    if path.name == "best.pt" and run.exists():
        return f"{run.name}_{path.resolve().parent.name}", run, (path,)
    return path.stem, None, (path,)


def _members(
    source: _Source, machine: Machine, channels: tuple[int, int] | None
) -> Iterable[Member]:
    for path in source.files:
        own = source.run is not None
        name = f"{source.name} {path.parent.name.replace('_', ' ')}" if own else str(path)
        styles = _styles(path) if own else None
        yield load_member(
            path, name, machine, styles=styles, only_type=source.only_type, channels=channels
        )


def _styles(model: Path) -> StyleModels | None:
    """Style models of a run's model file, if they were fitted on this very file."""
    path = FoldFolder(model.parent).styles
    if not path.exists():
        return None
    models = read_style_models(path)
    return models if models.model_hash == hash_file(model) else None


def known_types(members: Iterable[Member]) -> set[str]:
    """Cell types that the style models of members for all types can tell."""
    return {
        name
        for member in members
        if member.styles is not None
        and member.styles.cell_type is not None
        and not member.only_type
        for name in member.styles.cell_type.classes
    }


def _check_types(members: tuple[Member, ...]) -> None:
    """A member for one cell type needs others that can tell it."""
    known = known_types(members)
    for member in members:
        if member.only_type and known and member.only_type not in known:
            raise RunError(
                f"{member.name} is to join for images of type {member.only_type!r}, but the types that "
                f"the other members can tell are {', '.join(sorted(known))}."
            )


def _that_earned(sources: list[_Source], records: list[Path]) -> list[_Source]:
    """Without the runs that ``calibrate --greedy`` left out; all where some are for one type only."""
    if any(source.only_type for source in sources):
        return sources
    for record in records:
        found = read_thresholds(record)
        out = dict_or_empty(found.facts.get("member_choice")).get("left_out") or []
        kept = [source for source in sources if source.name not in out]
        hashes = sorted(hash_file(path) for source in kept for path in source.files)
        if out and hashes == sorted(found.members):
            _log.info(
                "%s: left out of the ensemble, as it does not raise its score (%s)",
                ", ".join(map(str, out)), record,
            )  # fmt: skip
            return kept
    return sources


def _calibrated(
    sources: list[_Source], members: tuple[Member, ...], records: list[Path], *, several: bool
) -> Thresholds | None:
    """Thresholds by the rules for ensembles: their own, else those of a run's single models."""
    alike = not any(source.only_type for source in sources)
    for record in records if alike else ():
        found = read_thresholds(record)
        if sorted(found.members) == sorted(member.hash for member in members):
            return found
        _log.warning("%s was calibrated for other members and is not used", record)
    run = sources[0].run
    if len(sources) > 1 or run is None:
        return None
    if is_final_record(run.read_record()):
        return vouched_thresholds(run)
    if not run.thresholds.exists():
        return None
    found = read_thresholds(run.thresholds)
    if {member.hash for member in members} <= set(found.members):
        return dataclasses.replace(found, source=SINGLE_MODELS if several else found.source)
    _log.warning("%s was made with other models and is not used", run.thresholds)
    return None


def _ensemble_records(sources: list[_Source], ensembles_dir: Path) -> list[Path]:
    """Where thresholds of these members together may lie; a published run brings its own along."""
    found = [ensemble_record(ensembles_dir, [source.name for source in sources])]
    run = sources[0].run
    if len(sources) == 1 and run is not None:
        found += sorted(run.path.glob("ensembles/*/ensemble.json"))
    return [path for path in found if path.exists()]


def _of_training(
    sources: list[_Source], members: tuple[Member, ...], given: MaskOverrides
) -> Thresholds:
    """Thresholds that all runs were trained with, where none were given; policy of their OOF passes."""
    runs = [source.run for source in sources if source.run is not None]
    masks = [given.apply(run_mask(run)) for run in runs] or [MaskConfig()]
    if len(set(masks)) > 1:
        found = "; ".join(f"{run.name}: {mask}" for run, mask in zip(runs, masks, strict=True))
        raise RunError(
            f"The runs were trained with different thresholds ({found}). Calibrate them together with: "
            f"cellflow calibrate {' '.join(map(run_word, runs))}; or say which ones to use: "
            "--cellprob_threshold, --flow_threshold, --min_size and so on."
        )
    policies = {policy_of(source.run, source.files) for source in sources if source.run}
    policy, diameter = policies.pop() if len(policies) == 1 else ("dataset", None)
    if policies:
        _log.warning("the runs chose different diameter policies; that of the data set is used")
    return Thresholds(masks[0], source=NOT_CALIBRATED, policy=policy, diameter=diameter)


def check_type(cell_type: str | None, opened: Opened) -> str:
    """The cell type that was given, "" for none.

    Raises
    ------
    DataError
        If no member and no threshold knows it, or none is given and members for one type need to be told.
    """
    single = {member.only_type for member in opened.members} - {""}
    can_tell = known_types(opened.members)
    if not cell_type:
        if single and not can_tell:
            raise DataError(
                "Members that join for one cell type need to know the type of each image: give it with "
                "--cell_type, or add a run whose out-of-fold pass has fitted style models (cellflow oof)."
            )
        return ""
    known = can_tell | single | set(opened.thresholds.per_type)
    if known and cell_type not in known:
        raise DataError(f"--cell_type {cell_type}: expected one of {', '.join(sorted(known))}.")
    return cell_type


def describe_members(opened: Opened) -> list[dict[str, Any]]:
    """Names, hashes, diameters and channels of the members, for records."""
    names = ("name", "hash", "diam_labels", "chan", "chan2", "only_type")
    rows = [{name: getattr(member, name) for name in names} for member in opened.members]
    return [{name: row[name] for name in names if name != "only_type" or row[name]} for row in rows]

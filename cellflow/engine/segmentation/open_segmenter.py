"""The segmenter that a command asks for: its models opened, with everything that goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from cellflow.config import EnsembleConfig
from cellflow.engine.runtime.kept import once
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.segmentation.open_models import Opened, check_type, open_models
from cellflow.engine.segmentation.segmenter import FLIPS, ForeignFlows, Segmenter
from cellflow.errors import RunError

__all__ = ["OpenSegmenter", "for_workers", "kept_segmenter", "open_segmenter"]


class OpenSegmenter(NamedTuple):
    """The machine, the opened models, and the segmenter that they make."""

    machine: Machine
    opened: Opened
    segmenter: Segmenter


def open_segmenter(
    config: EnsembleConfig,
    channels: tuple[int, int] | None,
    foreign: Sequence[ForeignFlows] = (),
) -> OpenSegmenter:
    """Open the models of a command on this machine.

    Parameters
    ----------
    config : EnsembleConfig
        The command.
    channels : (int, int) or None
        Channels that were given, for files that do not say theirs.
    foreign : sequence of callable
        Flows of other origin that join, see `Segmenter`.

    Raises
    ------
    RunError, CheckpointError
        As `open_models`; also if models were trained with other channels than those given.
    """
    machine = choose_machine(config.runtime)
    opened = open_models(
        config.runs, machine, runs_dir=config.runs_dir, ensembles_dir=config.ensembles_dir,
        unfinished=config.unfinished, calibrated=config.calibrated, overrides=config.mask,
        foreign=bool(foreign), channels=channels, download=config.download,
    )  # fmt: skip
    _check_channels(channels, opened)
    inference = config.inference
    if isinstance(inference.diameter, str):
        raise RunError(f"--diameter: expected pixels here, found {inference.diameter!r}.")
    if inference.diameter_rounds and opened.diameter is not None:
        raise RunError(
            f"--diameter_rounds: {opened.name} was calibrated for one diameter, {opened.diameter:g} pixels, "
            "which all its images get. Leave it out, or make out-of-fold predictions without --diameter."
        )
    segmenter = Segmenter(
        opened.members, opened.thresholds.shared, per_type=opened.thresholds.per_type,
        batch_size=inference.batch_size, diameter=inference.diameter or opened.diameter,
        policy=opened.policy, rounds=inference.diameter_rounds,
        cell_type=check_type(inference.cell_type, opened),
        flips=FLIPS if inference.tta else ("",), scales=inference.scales, augment=inference.augment,
        weights=_weights(opened, len(foreign)) if config.weights == "cv" else None,
        average=opened.average if config.average == "auto" else config.average, foreign=foreign,
    )  # fmt: skip
    return OpenSegmenter(machine, opened, segmenter)


def for_workers(config: EnsembleConfig) -> EnsembleConfig:
    """The command with paths that mean the same in every working folder."""
    roi = config.slides.roi
    if roi and Path(roi).is_file():
        config = replace(config, slides=replace(config.slides, roi=str(Path(roi).absolute())))
    return replace(
        config,
        images=tuple(path.absolute() for path in config.images),
        runs=tuple(_anywhere(run, config.runs_dir) for run in config.runs),
        runs_dir=config.runs_dir.absolute(),
        ensembles_dir=config.ensembles_dir.absolute(),
        output=replace(config.output, out=config.output.out.absolute()),
        flows=tuple(path.absolute() for path in config.flows),
    )


def _anywhere(run: str, runs_dir: Path) -> str:
    """What names a model, with an absolute path where it is one; ``NAME@TYPE`` as well."""
    name, sign, only_type = run.rpartition("@")
    if not name or Path(run).exists():
        name, sign, only_type = run, "", ""
    path = Path(name)
    if path.is_file() or (path.exists() and not (runs_dir / name).exists()):
        name = str(path.absolute())
    return name + sign + only_type


def kept_segmenter(
    config: EnsembleConfig,
    channels: tuple[int, int] | None,
    foreign: Sequence[ForeignFlows] = (),
) -> OpenSegmenter:
    """That of `open_segmenter`, opened once by a worker and kept for all tasks of one command."""
    key = ("segmenter", repr(config), channels, bool(foreign))
    return once(key, lambda: open_segmenter(config, channels, foreign))


def _check_channels(wanted: tuple[int, int] | None, opened: Opened) -> None:
    for member in opened.members:
        if wanted is not None and (member.chan, member.chan2) != wanted:
            raise RunError(
                f"{member.name} was trained with --chan {member.chan} --chan2 {member.chan2}, found "
                f"--chan {wanted[0]} --chan2 {wanted[1]}. Leave them out: they travel with the model."
            )


def _weights(opened: Opened, foreign: int) -> list[float]:
    """Best validation score of each member; foreign flows count as their mean."""
    pairs = zip(opened.members, opened.scores, strict=True)
    unknown = [member.name for member, score in pairs if not score >= 0]
    if unknown or not sum(opened.scores):
        raise RunError(
            "--weights cv needs a cross-validation score of every member, and one above 0; "
            f"{f'{unknown[0]} has none' if unknown else 'all are 0'}. Use --weights equal."
        )
    scores = list(opened.scores)
    return scores + [sum(scores) / len(scores)] * foreign

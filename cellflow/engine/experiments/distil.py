"""One network that has learnt what several say, as a run like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cellflow.config import DistilConfig, ModelConfig, TrainConfig, check_config
from cellflow.config.layers import blank_config, with_settings
from cellflow.engine.prediction.soft_targets import FlowTargets, write_flow_targets
from cellflow.engine.runs.next_command import trained_run
from cellflow.engine.runs.start_file import start_identity
from cellflow.engine.training.fold_result import FoldResult
from cellflow.engine.training.train import train
from cellflow.errors import RunError
from cellflow.io.target_folder import ALL
from cellflow.storage.config_file import read_config_file
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.types import one_line

__all__ = ["DistilResult", "distil"]

GENTLER = 5
"""How much lower than its teacher's the learning rate of a student is that starts from a model where that did not."""


@one_line
@dataclass(frozen=True, eq=False)
class DistilResult:
    """The student, and what it learnt from.

    Attributes
    ----------
    run : RunFolder
        Its run.
    targets : Path
        Folder of the flows.
    folds : list of FoldResult
        How each fold ended.
    training : TrainConfig
        What it was trained with.
    left_out, failed : dict of str to str
        Why images were passed over, and could not be used.
    """

    run: RunFolder
    targets: Path
    folds: list[FoldResult]
    training: TrainConfig
    left_out: dict[str, str]
    failed: dict[str, str]


def distil(config: DistilConfig) -> DistilResult:
    """Train one network on the averaged flows of several, with the settings that the first run was trained with.

    It starts from the first run's model, of the same fold, and learns from there what all say.

    For each fold the teachers are the models of that fold alone, one a run, each at four flips: all others have seen
    the images that the fold validates on, and so would the student, at second hand. Its out-of-fold score is
    therefore as honest as theirs. A final student, run NAME-final, has all members as teachers and learns from all
    images; no score of it is honest, and none is made. The students of each fold vouch for it, if they are there. The
    same call goes on where it stopped.

    Raises
    ------
    RunError, DataError, CheckpointError, LeakError
        If there is no such run or image, runs do not fit together, or names are taken by something else.

    Examples
    --------
    What both folds of ``runs/exp`` and ``runs/second`` say, two networks for each fold, in one for each:

    >>> from cellflow import DistilConfig, distil
    >>> result = distil(DistilConfig(runs=("exp", "second"), name="student", n_epochs=1))
    >>> result.run.path.as_posix(), [fold.fold for fold in result.folds]
    ('runs/student', [0, 1])
    """
    check_config(config)
    if config.pretrained_model not in (None, "none"):
        start_identity(str(config.pretrained_model))  # a slip is told before hours of teaching
    _check_not_debug(find_run(config.runs[0] if config.runs else None, config.runs_dir))
    targets = write_flow_targets(config)
    training = _training(config, targets)
    folds = train(training)
    return DistilResult(
        trained_run(training), targets.folder, folds, training, targets.left_out, targets.failed
    )


def _check_not_debug(teacher: RunFolder) -> None:
    """Refuse a run whose settings are those of a trial, before its models teach."""
    if teacher.read_record()["config"].get("debug"):
        raise RunError(
            f"{teacher.path} is a debug run, trained for a minute on a few images. Distil a run that was trained "
            "without --debug.",
            path=teacher.path,
        )


def _training(config: DistilConfig, targets: FlowTargets) -> TrainConfig:
    """The settings of the first teacher's training, for the student."""
    teacher = targets.teachers.runs[0]
    if not teacher.settings("train").is_file():
        raise RunError(
            f"{teacher.settings('train')} is gone, so the settings to train the student with are not known. Train "
            f"it with: cellflow train --name {config.name} --pseudo {targets.folder} --pretrained_model "
            f"{teacher.path}{' --fold none' if config.final else ''}",
            path=teacher.settings("train"),
        )
    settings = read_config_file(teacher.settings("train"), "train")
    plain = with_settings(blank_config(TrainConfig), settings, str(teacher.settings("train")))
    parts = targets.teachers.opened
    folds = () if ALL in parts else sorted(int(part.removeprefix("fold_")) for part in parts)
    model = _start(plain.model, config.pretrained_model or _first_teacher(targets))
    optim = plain.optim
    if config.n_epochs is not None:
        optim = replace(optim, n_epochs=config.n_epochs)
    if model.is_pretrained and not plain.model.is_pretrained:
        optim = replace(optim, learning_rate=optim.peak_learning_rate / GENTLER)
    if plain.model.is_pretrained and not model.is_pretrained:
        optim = replace(optim, learning_rate=None)
    return replace(
        plain,
        fold=tuple(map(str, folds)) or ("none",),
        data=targets.teachers.dataset.path,
        name=config.name,
        runs_dir=config.runs_dir,
        savedir=None,
        seed=plain.seed if config.seed is None else config.seed,
        time_budget=config.time_budget,
        pseudo=targets.folder,
        pseudo_weight=config.pseudo_weight,
        model=model,
        optim=optim,
        runtime=config.runtime,
    )


def _first_teacher(targets: FlowTargets) -> str:
    """The first run, whose models of each fold teach that fold; for a final student the first of its models."""
    run, parts = targets.teachers.runs[0], targets.teachers.opened
    if ALL not in parts:
        return str(run.path)
    return str(run.fold(parts[ALL].members[0].facts["fold"]).best)


def _start(teacher: ModelConfig, start: str) -> ModelConfig:
    """The student's network: channels of its teacher, weights of the model to start from."""
    if start.lower() == "none":
        return replace(teacher, pretrained_model="none", freeze_encoder=False)
    return replace(teacher, pretrained_model=start, diam_mean=None)

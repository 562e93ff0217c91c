"""Command line: parse, make a config, call one engine function, print what came out."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

import tyro

from cellflow import config as configs
from cellflow.errors import CellflowError, ConfigError

__all__ = ["main", "run_command"]

_TRAINING = (configs.TrainConfig, configs.ChainConfig)
"""Settings that take --sgd, --adam and --SGD."""
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


@dataclass(frozen=True)
class Command:
    """One command: what it takes and what it does."""

    config: type[Any]
    run: Callable[[Any], None]
    again: str = "nothing half-written remains; the same command starts over"
    """What the same command does after an interruption."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `cellflow`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        _print(_overview())
        sys.exit(0)
    if words[0] in ("--version", "-V"):
        _print(f"cellflow {version('cellflow')}")
        sys.exit(0)
    if words[0] not in COMMANDS:
        names = ", ".join(COMMANDS)
        _fail(f"no command {words[0]!r}. There are: {names}. Try: cellflow --help", EXIT_USAGE)
    run_command(words[0], words[1:])
    sys.exit(0)


def run_command(name: str, words: Sequence[str], *, prog: str | None = None) -> None:
    """Run one command with its flags; leaves the process with an exit code when that fails.

    Parameters
    ----------
    name : str
        A command of `COMMANDS`.
    words : sequence of str
        Flags and arguments.
    prog : str or None
        How the program is called in help texts.
    """
    command = COMMANDS[name]
    settings = tyro.cli(
        command.config,
        prog=prog or f"cellflow {name}",
        args=_optimizer_flags(words) if command.config in _TRAINING else list(words),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    _log_to_console()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command.run(settings)
    except ConfigError as error:
        _fail(str(error), EXIT_USAGE)
    except CellflowError as error:
        _fail(str(error))
    except _Terminated:
        _fail(f"terminated; {command.again}", EXIT_TERMINATED)
    except KeyboardInterrupt:
        _fail(f"interrupted; {command.again}", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(EXIT_ERROR)
    except MemoryError:
        _fail("out of memory. Lower --batch_size, or close other programs.")
    except OSError as error:
        _fail(_os_error(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        _fail(
            "the GPU has too little memory. Lower --batch_size (or --bsize), or use --device cpu."
        )


class _Terminated(BaseException):
    """The process was asked to end; unwinds so that temporary files are removed."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _optimizer_flags(words: Sequence[str]) -> list[str]:
    """Write --sgd, --adam and Cellpose's --SGD 0|1 as --optimizer."""
    result: list[str] = []
    chosen: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in ("--sgd", "--SGD", "--adam"):
            result.append(word)
            continue
        if flag != "--adam" and not equals and rest and not rest[0].startswith("-"):
            equals, value = "=", rest.pop(0)
        if equals and (flag == "--adam" or value not in ("0", "1")):
            takes = "takes no value" if flag == "--adam" else "takes 0, 1 or nothing"
            _fail(f"{flag} {takes}, found {value!r}", EXIT_USAGE)
        chosen[word] = "adamw" if flag == "--adam" or value == "0" else "sgd"
    if len(set(chosen.values())) > 1:
        _fail(f"{' and '.join(chosen)} contradict each other; give one of them", EXIT_USAGE)
    return result + [part for name in chosen.values() for part in ("--optimizer", name)][:2]


def _prepare(config: configs.PrepareConfig) -> None:
    from cellflow.engine.prepare import prepare

    dataset = prepare(config)
    cells = int(dataset.images["n_instances"].sum())
    _print(f"{len(dataset.ids)} images with {cells} cells in {dataset.path}")
    _print("Next: cellflow folds" + _data_flag(config.out))


def _folds(config: configs.FoldsConfig) -> None:
    from cellflow.engine.folds import make_folds

    folds = make_folds(config)
    _print(f"{len(folds)} images in {config.data / 'folds.csv'}")
    _print("Next: cellflow train --fold all" + _data_flag(config.data))


def _train(config: configs.TrainConfig) -> None:
    if config.dry_run:
        from cellflow.engine.plan import plan_training

        _print(plan_text(plan_training(config)))
        return
    from cellflow.engine.train import train

    unfinished = False
    for result in train(config):
        _print(
            f"fold {result.fold}: best score {result.best_score:.4f} at epoch {result.best_epoch:g}"
        )
        unfinished |= not result.finished
    if unfinished:
        _print(
            "Time is up. The same command goes on; cellflow oof --unfinished takes the best so far."
        )


def plan_text(plan: Any) -> str:
    """A training plan as lines of text."""
    steps, total = plan.steps_per_epoch * plan.epochs, plan.fold_seconds * len(plan.folds)
    folds = ", ".join(map(str, plan.folds))
    lines = {
        "folds": f"{folds}; in fold {plan.folds[0]}, {plan.training} images train, "
        f"{plan.validation} validate",
        "length": f"{plan.epochs} epochs of {plan.steps_per_epoch} steps: {steps} steps and "
        f"{plan.evaluations} evaluations a fold",
        "machine": plan.machine.replace("amp None", "float32"),
        "step": f"{plan.step_seconds:.2f} s with {plan.crop_seconds:.3f} s of processor time for crops",
        "evaluation": f"{_duration(plan.evaluation_seconds)}",
        "memory": f"{plan.memory_bytes / 2**30:.1f} GiB at most",
        "disk": f"{(plan.state_bytes * len(plan.folds)) / 2**20:.0f} MiB of states",
        "time": f"{_duration(plan.fold_seconds)} a fold, {_duration(total)} one after the other",
        "picture": str(plan.picture),
    }
    return "\n".join(f"{name:11}{text}" for name, text in lines.items())


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _oof(config: configs.OofConfig) -> None:
    from cellflow.engine.cross_validation import cv_text
    from cellflow.engine.oof import oof

    result = oof(config)
    _print(cv_text(result.cv))
    _print(f"Written: {result.run.cv}, {result.run.oof}")
    _print(f"Next: cellflow calibrate {result.run.name}")


def _calibrate(config: configs.CalibrateConfig) -> None:
    from cellflow.engine.calibrate import calibrate

    _print_calibration(calibrate(config))


def _print_calibration(result: Any) -> None:
    from cellflow.engine.cross_validation import cv_text

    for run, thresholds, cv in zip(result.runs, result.thresholds, result.cv, strict=True):
        _print(cv_text(cv))
        _print(f"\n{thresholds_text(thresholds)}")
        _print(f"Written: {run.thresholds}, {run.cv}, {run.calibration}")
    if result.ensemble is not None:
        _print(f"\nensemble: {thresholds_text(result.ensemble)}")
        _print(f"Written: {result.record}")


def thresholds_text(thresholds: Any) -> str:
    """Thresholds with their source and what they gain, as lines of text."""
    from cellflow.engine.threshold_search import ALL_TYPES, describe

    lines = [f"thresholds from {thresholds.source}:"]
    for name, mask in {ALL_TYPES: thresholds.shared, **thresholds.per_type}.items():
        scores = thresholds.facts["scores"][name]
        found = scores["cross_fitted"]
        after = (
            "-> one group, not cross-fitted" if found is None else f"-> {found:.4f} cross-fitted"
        )
        lines.append(f"  {name:12} {describe(mask)}")
        lines.append(
            f"  {'':12} score {scores['training_thresholds']:.4f} {after}, {scores['images']} images"
        )
    return "\n".join(lines)


def _ensemble(config: configs.EnsembleConfig) -> None:
    from cellflow.engine.ensemble import ensemble, plan_ensemble

    if config.output.dry_run:
        _print(prediction_plan_text(plan_ensemble(config)))
        return
    _print_prediction(ensemble(config))


def _predict(config: configs.PredictConfig) -> None:
    from cellflow.engine.predict import plan_prediction, predict

    if config.output.dry_run:
        _print(prediction_plan_text(plan_prediction(config)))
        return
    _print_prediction(predict(config))


def _print_prediction(result: Any) -> None:
    found = sum(result.cells.values())
    _print(f"{found} cells in {len(result.cells)} images, mean flow of {result.members} models")
    _print(f"Written: {result.folder}")
    if result.failed:
        total = len(result.cells) + len(result.failed)
        _fail(f"{len(result.failed)} of {total} images could not be used, see above")


def prediction_plan_text(plan: Any) -> str:
    """A plan of a prediction as lines of text."""
    lines = {
        "images": f"{plan.images}, {plan.done} of them done",
        "members": f"{plan.members} networks, {plan.views} views each",
        "thresholds": plan.thresholds,
        "machine": plan.machine.replace("amp None", "float32"),
        "an image": f"{plan.seconds_per_image:.2f} s, measured on the first ones",
        "time": f"{_duration(plan.seconds)} for those that are left",
        "results": str(plan.folder),
    }
    return "\n".join(f"{name:11}{text}" for name, text in lines.items())


def _run(config: configs.ChainConfig) -> None:
    from cellflow.engine.chain import run_chain

    result = run_chain(config)
    if result.calibration is None:
        _print("Time is up. The same command goes on.")
        return
    _print_calibration(result.calibration)
    if result.ensemble is not None:
        _print_prediction(result.ensemble)


def _score(config: configs.ScoreConfig) -> None:
    from cellflow.engine.score import score_masks

    result = score_masks(config)
    _print(result.table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    if result.conclusion:
        _print(result.conclusion)
    if config.out is not None:
        _print(f"Written: {config.out}")


def _demo(config: configs.DemoConfig) -> None:
    from cellflow.engine.cross_validation import cv_text
    from cellflow.engine.demo import demo

    result = demo(config)
    _print(cv_text(result.cv))
    _print(
        f"\nensemble of {result.members} models on {result.unseen} unseen images: {result.score:.4f}"
    )
    _print(f"submission  {result.submission}")
    _print(f"masks       {result.masks}")
    _print(f"picture     {result.picture}")
    _print(f"time        {result.seconds:.0f} s")


_GOES_ON = "the same command goes on where it stopped"

COMMANDS = {
    "demo": Command(configs.DemoConfig, _demo),
    "prepare": Command(configs.PrepareConfig, _prepare),
    "folds": Command(configs.FoldsConfig, _folds),
    "train": Command(configs.TrainConfig, _train, _GOES_ON),
    "oof": Command(configs.OofConfig, _oof),
    "calibrate": Command(configs.CalibrateConfig, _calibrate),
    "ensemble": Command(configs.EnsembleConfig, _ensemble, _GOES_ON),
    "predict": Command(configs.PredictConfig, _predict, _GOES_ON),
    "run": Command(configs.ChainConfig, _run, _GOES_ON),
    "score": Command(configs.ScoreConfig, _score),
}


def _overview() -> str:
    lines = [
        "usage: cellflow COMMAND [OPTIONS]",
        "",
        "From annotated cell images to an ensemble:",
        "",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:10} {(command.config.__doc__ or '').splitlines()[0]}")
    lines += [
        "",
        "cellflow COMMAND --help lists the options; hyphens and underscores are equal in flags.",
    ]
    return "\n".join(lines)


def _data_flag(path: Any) -> str:
    return "" if str(path) == "cellflow-data" else f" --data {path}"


def _os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}. Free some space and repeat the command; nothing half-written remains."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{where}. Change its permissions, or choose another place."
    return f"{error.strerror or error}{where}"


def _log_to_console() -> None:
    logger = logging.getLogger("cellflow")
    logger.setLevel(logging.INFO)
    if not any(getattr(handler, "cellflow_console", False) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.cellflow_console = True  # type: ignore[attr-defined]
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    sys.stderr.write(f"cellflow: {message}\n")
    sys.exit(code)

"""Commands to make a run again, and to predict with it, as they can be typed in any folder."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

from cellflow.engine.runs.next_command import train_command
from cellflow.errors import CellflowError
from cellflow.storage.config_file import read_config_file
from cellflow.storage.run_folder import DEBUG, FINAL, RunFolder, ensemble_record, is_final_record

__all__ = ["again_commands", "use_commands"]

Commands = list[tuple[str, str]]


def again_commands(run: RunFolder, record: dict[str, Any]) -> Commands:
    """What makes a run of these settings again under a free name, from the settings that the commands kept.

    Parameters
    ----------
    run : RunFolder
        The run.
    record : dict
        What it was started with; empty where that is not known.

    Returns
    -------
    list of (str, str)
        What each does, and the command. Empty where no settings are there, as in a published run.
    """
    if not record or not run.settings("train").is_file():
        return []
    data = Path(str(record["data"])).resolve()
    run = RunFolder(run.path.resolve())
    name = _free_name(run)
    other = run.path.parent / name
    commands = _data_commands(data)
    train = train_command(run, None, name=name, runs_dir=run.path.parent, data=data)
    what = "it" if is_final_record(record) else "all folds"
    commands.append((f"train {what}, under another name", train))
    steps = {
        "oof": "predict every image with the fold that never saw it",
        "calibrate": "fit thresholds",
    }
    for command, what in steps.items():
        settings = run.settings(command)
        if settings.is_file():
            commands.append((what, _with_settings(command, other, settings, data)))
    return commands


def _data_commands(data: Path) -> Commands:
    """What made the dataset, where its settings are there; these hold its folder as it was typed."""
    steps = {
        "prepare": ("make the dataset, where it is gone", "--out"),
        "folds": ("split it", "--data"),
    }
    found = []
    for command, (what, flag) in steps.items():
        settings = data / f"{command}.yaml"
        if settings.is_file():
            words = ["cellflow", command, "--config", str(settings), flag, str(data)]
            found.append((what, shlex.join(words)))
    return found


def _with_settings(command: str, run: Path, settings: Path, data: Path) -> str:
    """A command with its settings, for another run."""
    words = ["cellflow", command, str(run), "--config", str(settings.resolve())]
    try:
        known = read_config_file(settings, command)
    except CellflowError:
        known = {}
    if known.get("data"):  # as it was typed, in whatever folder
        words += ["--data", str(data)]
    if command == "calibrate":
        ensembles = run.parent.parent / "ensembles"
        words += ["--ensembles_dir", str(ensembles)]
    return " ".join(map(shlex.quote, words))


def _free_name(run: RunFolder) -> str:
    """A name that no run has; endings that a training gives, as to debug runs, stay."""
    stem = run.name.removesuffix(DEBUG).removesuffix(FINAL)
    ends = itertools.chain(["-again"], (f"-again-{n}" for n in itertools.count(2)))
    names = (stem + end + run.name[len(stem) :] for end in ends)
    return next(name for name in names if not (run.path.parent / name).exists())


def use_commands(run: RunFolder, *, unfinished: bool) -> Commands:
    """What predicts with the models of a run; FOLDER stands for new images.

    Parameters
    ----------
    run : RunFolder
        The run.
    unfinished : bool
        Whether folds are not trained to their end, so that their best models so far are taken.
    """
    if not any(fold.best.is_file() for fold in run.fold_folders()):
        return []
    path = run.path.resolve()
    more, in_python = "", ""
    folder = path.parent.parent / "ensembles"
    if ensemble_record(folder, [path.name]).is_file():  # commands look for it where they are typed
        more, in_python = (
            f" --ensembles_dir {shlex.quote(str(folder))}",
            f", ensembles_dir={str(folder)!r}",
        )
    if unfinished:
        more, in_python = f"{more} --unfinished", f"{in_python}, unfinished=True"
    return [
        (
            "segment new images with all folds together; FOLDER holds the images",
            f"cellflow predict FOLDER --model {shlex.quote(str(path))}{more}",
        ),
        (
            "the same in Python",
            "from cellflow import load_model\n"
            f"model = load_model({str(path)!r}{in_python})\n"
            "labels = model.predict(image).labels",
        ),
    ]

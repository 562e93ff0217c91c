"""Completion of commands and flags in a shell: tyro writes it from the settings of all commands."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from cellflow.cli.commands import COMMANDS
from cellflow.cli.meant import flags_of
from cellflow.cli.parsing import taken_out

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh", "fish")


def completion_script(shell: str) -> str:
    """Script that a shell reads to complete `cellflow`; it needs Python 3 on the PATH, not cellflow.

    Parameters
    ----------
    shell : {"bash", "zsh", "fish"}
    """
    app = tyro.extras.SubcommandApp()
    for name, command in COMMANDS.items():
        app.command(_flags_only(command.config), name=name)
    with TemporaryDirectory() as folder:
        path = Path(folder, "script")
        with contextlib.suppress(SystemExit):  # tyro's way to end
            app.cli(
                args=["--tyro-write-completion", shell, str(path)],
                prog="cellflow",
                use_underscores=True,
            )
        return path.read_text(encoding="utf-8")


def _flags_only(config: type[Any]) -> Any:
    """A class with the flags of a command, all on one level and without their help.

    Of the help a shell shows a line; it takes what comes after for words of its own, and fish hands the whole
    script to Python as one argument, which may have 128 KiB.
    """
    hints = {name: item.hint for name, item in flags_of(config).items()} | taken_out(config)
    switches = (bool, tyro.conf.FlagCreatePairsOff[bool])
    fields = [
        (name, hint, dataclasses.field(default=False if hint in switches else tyro.MISSING))
        for name, hint in hints.items()
    ]
    return dataclasses.make_dataclass(config.__name__, fields)

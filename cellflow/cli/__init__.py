"""Command line: parse, make a config, call one engine function, print what came out."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

from cellflow.cli.commands import COMMANDS, Command
from cellflow.cli.console import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USAGE,
    fail,
    say,
)
from cellflow.cli.meant import unknown_command
from cellflow.cli.parsing import parse
from cellflow.errors import CellflowError, ConfigError

__all__ = ["COMMANDS", "Command", "main", "run_command"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `cellflow`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        say(_overview())
        sys.exit(0)
    if words[0] in ("--version", "-V"):
        say(f"cellflow {version('cellflow')}")
        sys.exit(0)
    if words[0] == "--completion":
        _complete(words[1:])
    name = words[0].replace("_", "-")
    if name not in COMMANDS:
        fail(unknown_command(words), EXIT_USAGE)
    run_command(name, words[1:])
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
    from cellflow.engine.runtime.logs import log_to_console

    command = COMMANDS[name]
    log_to_console()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command.run(parse(name, words, config=command.config, prog=prog))
    except ConfigError as error:
        fail(f"{error}\nAll flags: {prog or f'cellflow {name}'} --help", EXIT_USAGE)
    except CellflowError as error:
        fail(str(error))
    except _Terminated:
        fail(f"terminated; {command.again}", EXIT_TERMINATED)
    except KeyboardInterrupt:
        fail(f"interrupted; {command.again}", EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(EXIT_ERROR)
    except MemoryError:
        fail("out of memory. Lower --batch_size, or close other programs.")
    except OSError as error:
        fail(_os_error(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        fail("the GPU has too little memory. Lower --batch_size (or --bsize), or use --device cpu.")


class _Terminated(BaseException):
    """The process was asked to end; unwinds so that temporary files are removed."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _complete(words: list[str]) -> NoReturn:
    """Write the script with which a shell completes commands and flags."""
    from cellflow.cli.completion import SHELLS, completion_script

    if len(words) != 1 or words[0] not in SHELLS:
        found = " ".join(words) or "nothing"
        fail(f"--completion takes one of {', '.join(SHELLS)}, found {found}", EXIT_USAGE)
    say(completion_script(words[0]))
    sys.exit(0)


def _overview() -> str:
    lines = [
        "usage: cellflow COMMAND [OPTIONS]",
        "",
        "From annotated cell images to an ensemble:",
        "",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:15} {(command.config.__doc__ or '').splitlines()[0]}")
    lines += [
        "",
        "cellflow COMMAND --help lists the options; hyphens and underscores are equal.",
        "--config FILE.yaml takes them from a file.",
        "cellflow --version; cellflow --completion bash (zsh, fish) prints what completes all this in a shell.",
    ]
    return "\n".join(lines)


def _os_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}. Free some space and repeat the command; nothing half-written remains."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{where}. Change its permissions, or choose another place."
    return f"{error.strerror or error}{where}"

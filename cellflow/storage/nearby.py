"""What lies where somebody named a file or folder that is not there, and names for what goes beside one."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path
from shlex import quote

from cellflow.storage.sizes import few_text

__all__ = ["beside", "is_file", "nearby"]

_CLOSE = 0.6
"""How alike two names must be for one to be a slip of the other, 1 being equal."""


def is_file(path: Path) -> bool:
    """Whether there is such a file; a text that is too long for a name is none."""
    with suppress(OSError):
        return path.is_file()
    return False


def nearby(path: Path) -> str:
    """Say what there is in place of a path that leads nowhere.

    Parameters
    ----------
    path : Path
        What was named.

    Returns
    -------
    str
        The name that was probably meant, or what the folder holds, as a sentence to go after another:
        with a blank before it. Empty where nothing is there, or nothing may be looked into.
    """
    names = [name for name in (path, *path.parents) if name.name not in ("", "..")]
    try:
        missing = next(name for name in reversed(names) if not name.exists())
        items = sorted(item for item in missing.parent.iterdir() if item.name[0] != ".")
    except (OSError, StopIteration):  # not ours to look into, or it is there after all
        return ""
    by_name = {item.name.lower(): item for item in items}
    near = difflib.get_close_matches(missing.name.lower(), by_name, 1, _CLOSE)
    if near:
        meant = by_name[near[0]] / path.relative_to(missing)
        found = meant if meant.exists() else by_name[near[0]]
        return f" Did you mean {quote(str(found))}?"
    where = "Here" if missing.parent == Path() else f"In {missing.parent}"
    return f" {where} there is: {few_text(item.name for item in items)}." if items else ""


def beside(folder: Path, ending: str) -> str:
    """A folder's name with an ending, as it is typed; ``.`` and ``..`` have names of their own for that."""
    if folder.name in ("", ".."):
        folder = folder.resolve()
    return quote(f"{folder}{ending}")

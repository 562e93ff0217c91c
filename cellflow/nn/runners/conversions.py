"""Converted networks on disk, so that a model file is converted once on a machine.

Each lies in a folder of its own under ``CELLFLOW_CACHE_DIR``, else the user's cache folder. Its name is the
hash of what the conversion is made from: weights, the network's code, and the converter's version. The
oldest in use go when there are many. Where nothing can be written, every process converts for itself.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cellflow.errors import CellflowError
from cellflow.nn.networks import Network
from cellflow.storage.atomic import atomic_folder
from cellflow.storage.hashing import hash_bytes

__all__ = ["CACHE_VARIABLE", "converted", "core"]

CACHE_VARIABLE = "CELLFLOW_CACHE_DIR"
"""Environment variable with the folder of what can be made again."""
KEPT = 24
"""Conversions on disk, 27 MB each for Cellpose's U-Net."""
_FILE = "network.xml"


def converted(net: Network, purpose: str, convert: Callable[[], Any], keep: bool) -> Any:
    """The OpenVINO model that `convert` makes of a network for a purpose, from disk where it is there.

    Parameters
    ----------
    net : Network
        The network, on the CPU.
    purpose : str
        Tells apart what is made of one network.
    convert : callable
        Makes the model.
    keep : bool
        Write what was made, and look for it; not for a network whose code is in no file (typed at a
        prompt, say), since nothing tells whether it has changed.
    """
    code = _code(net) if keep else None
    if code is None:
        return convert()
    import openvino

    place = cache_folder() / _key(net, purpose, openvino.__version__, code)
    # Whatever is wrong with a file there, it can be made again.
    with suppress(Exception):
        return _read(place)
    model = convert()
    with suppress(OSError, RuntimeError, CellflowError):
        with atomic_folder(place, replace=True) as folder:
            openvino.save_model(model, folder / _FILE, compress_to_fp16=False)
        _remove_oldest(place.parent)
        return _read(place)  # as the next process will: the last bit of the output may depend on it
    return model


@cache
def core() -> Any:
    """OpenVINO's core, one for the process.

    Each of several would put up a stack for signals and take it down with itself; the last one then puts
    back that of one that is gone, and the next signal ends the process (2026.4, with AMX).
    """
    import openvino

    return openvino.Core()


def _read(place: Path) -> Any:
    model = core().read_model(place / _FILE)
    os.utime(place)
    return model


def cache_folder() -> Path:
    """Where conversions lie."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "openvino"
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "cellflow" / "openvino"


def _code(net: Network) -> list[str] | None:
    """Text of the files that the classes of a network and its layers are in; None where one is in no file."""
    classes = {cls for module in net.modules() for cls in type(module).__mro__}
    own = [cls for cls in classes if cls.__module__.partition(".")[0] not in ("torch", "builtins")]
    try:
        files = {inspect.getfile(cls) for cls in own}
        return [Path(file).read_text(encoding="utf-8") for file in sorted(files)]
    except (OSError, TypeError, ValueError):
        return None


def _key(net: Network, purpose: str, version: str, code: list[str]) -> str:
    """Hash of all that decides what a conversion is."""
    # The code counts as well: who changes a network must not get what it was.
    weights, kind = net.state_dict(), type(net).__qualname__
    shapes = (f"{name} {tuple(value.shape)}" for name, value in weights.items())
    parts = [purpose, version, kind, *code, *shapes]
    arrays = (value.detach().contiguous().numpy().tobytes() for value in weights.values())
    return hash_bytes(*(part.encode() for part in parts), *arrays)


def _remove_oldest(folder: Path) -> None:
    """Keep those that were used last."""
    places = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    places.sort(key=lambda path: path.stat().st_mtime)
    for path in places[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)

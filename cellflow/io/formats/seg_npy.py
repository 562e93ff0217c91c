"""``NAME_seg.npy`` of Cellpose 1 to 4: a dictionary with label map, outlines and flows, in a pickle.

A pickle can run any code when it is loaded, so none is loaded here. `read_seg_npy` goes through the file's
instructions first and then builds arrays, numbers, texts, lists and dictionaries from it, and nothing else: what
a file asks for beyond these ends in a `DataError`.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.io.pixel_limit import refuse_large
from cellflow.numeric.labels import outlines
from cellflow.storage.atomic import atomic_path

__all__ = ["read_seg_npy", "write_seg_npy"]

_SMALL = 2**26
"""Bytes that are read without a look at the end."""
_LARGEST = 2**34
"""Bytes of a file that is read whole."""
_REFUSED = {
    "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER",
    "READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET",
}  # fmt: skip
"""Instructions of pickles that no such file needs."""
_MEMOS = {"PUT", "BINPUT", "LONG_BINPUT"}
_FETCHES = {"GET", "BINGET", "LONG_BINGET"}
_PLAIN = {
    pickletools.pyint, pickletools.pylong, pickletools.pyinteger_or_bool, pickletools.pybool, pickletools.pyfloat,
    pickletools.pynone, pickletools.pyunicode, pickletools.pystring, pickletools.pybytes,
    pickletools.pybytes_or_str,
}  # fmt: skip
"""What may be a key."""
_DTYPE = re.compile(r"[bBiufSUO?](1|2|4|8|16)?|[SU]\d{1,4}")


def read_seg_npy(path: Path) -> NDArray[np.int64]:
    """Read the label map of a file of Cellpose's GUI.

    Parameters
    ----------
    path : Path
        ``NAME_seg.npy`` of Cellpose 1, 2, 3 or 4. Nothing in it is run.

    Returns
    -------
    (H, W) int64 ndarray
        0 background; gaps and labels of several parts stay.

    Raises
    ------
    DataError
        If the file cannot be read, is damaged, holds anything but plain values and arrays, has no label
        map, or that of a stack.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: larger than {_LARGEST // 2**30} GiB.", path=path)
        if not _ends(path):
            raise DataError(
                f"{path}: it has no end; it was cut off. Save it again in Cellpose.", path=path
            )
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        values = _plain(_load(data))
    except _NotPlainError as error:
        text = (
            f"{path}: expected plain values and arrays as Cellpose writes them, found {error}. Nothing of "
            "it was run. If the file is from somebody you trust, open it in Cellpose and save it again."
        )
        raise DataError(text, path=path, found=str(error)) from None
    except Exception as error:  # of any kind: what pickle and NumPy raise depends on the damage
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        text = f"{path}: not a file of Cellpose's GUI, or a damaged one ({why}). Save it again in Cellpose."
        raise DataError(text, path=path) from error
    if not isinstance(values, Mapping) or "masks" not in values:
        text = f"{path}: expected a file of Cellpose's GUI with 'masks' in it, found {_few_keys(values)}."
        raise DataError(text, path=path, expected="masks")
    return _label_map(path, _plain(values["masks"]))


def write_seg_npy(
    path: Path,
    labels: NDArray[Any],
    *,
    image: Path | None = None,
    flows: list[Any] | None = None,
    diameter: float = 30.0,
    channels: tuple[int, int] = (0, 0),
) -> None:
    """Write a file that the GUI of Cellpose 2 to 4 opens, atomically, as ``cellpose.io.masks_flows_to_seg`` does.

    The format is a pickle in a ``.npy`` file; this one holds arrays, numbers, texts and lists.

    Parameters
    ----------
    path : Path
        Ends in ``_seg.npy``.
    labels : (H, W) integer ndarray
        1..n without gaps, 0 background.
    image : Path, optional
        The image. Where it is not found there, the GUI looks for its name beside `path`.
    flows : list, optional
        Of the picture of the flows ``(1, H, W, 3)`` and the cell probability ``(1, H, W)``, both uint8,
        dY and dX ``(1, 2, H, W)``, logit ``(1, H, W)``, and all three ``(3, H, W)``, float32.
    diameter : float
        In pixels.
    channels : tuple of int
        As ``--chan`` and ``--chan2``.
    """
    top = int(labels.max(initial=0))
    masks: NDArray[Any] = labels.astype(np.uint16 if top < 2**16 - 1 else np.uint32)
    values = {
        "outlines": np.where(outlines(masks), masks, 0).astype(masks.dtype),
        "masks": masks,
        "chan_choose": list(channels),
        "ismanual": np.zeros(top, dtype=np.bool_),
        "filename": str(image) if image is not None else path.name.replace("_seg.npy", ".tif"),
        "flows": [[], [], [], [], [[]]] if flows is None else flows,
        "diameter": float(diameter),
        "est_diam": float(diameter),  # what the GUI shows
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(values, dtype=object))


def _label_map(path: Path, masks: Any) -> NDArray[np.int64]:
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "iub":
        found = masks.dtype if isinstance(masks, np.ndarray) else type(masks).__name__
        message = f"{path}: expected whole numbers as 'masks', found {found}."
        raise DataError(message, path=path, found=found)
    if masks.ndim == 3 and len(masks) == 1:
        masks = masks[0]
    if masks.ndim != 2 or not masks.size:
        text = (
            f"{path}: expected the label map of one 2D image, found {masks.shape}. Save each plane as an "
            "image of its own."
        )
        raise DataError(text, path=path, found=masks.shape)
    try:
        refuse_large((masks.shape[0], masks.shape[1]))  # eight bytes a pixel from here on
    except DataError as error:
        raise DataError(f"{path}: {error}", **error.facts | {"path": path}) from None
    labels: NDArray[np.int64] = masks.astype(np.int64)
    lowest = int(labels.min())
    if lowest < -1:
        raise DataError(f"{path}: expected labels of 0 and more, found {lowest}.", path=path)
    return labels - lowest if lowest == -1 else labels  # Cellpose 0 called the background -1


def _ends(path: Path) -> bool:
    """Whether a large file ends as a pickle does: a look that costs nothing, before all of it is read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size <= _SMALL or file.read() == pickle.STOP


def _few_keys(values: Any) -> str:
    if not isinstance(values, Mapping):
        return f"{type(values).__name__}"
    names = [key[:40] for key in values if isinstance(key, str)]
    return ", ".join(names[:8]) or "nothing"


# ------------------------------------------------------------------------------- the pickle in the file


class _NotPlainError(Exception):
    """A pickle asks for more than plain values and arrays."""


class _Type:
    """A type of values as a pickle tells it: its letter and size first, its byte order afterwards."""

    def __init__(self, text: Any = "", *_: Any) -> None:
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            found = repr(text[:40]) if isinstance(text, str) else f"a {type(text).__name__}"
            raise _NotPlainError(f"an array of {found}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order if order in ("<", ">") else "=")


class _Array:
    """An array as a pickle tells it: nothing at first, then shape, type and bytes."""

    value: NDArray[Any]

    def __init__(self, *_: Any) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, content = state
        if not isinstance(kind, _Type):
            raise _NotPlainError("an array of no type")
        if isinstance(content, str):  # bytes as Python 2 wrote them
            content = content.encode("latin1")
        if isinstance(content, list):
            flat = np.empty(len(content), dtype=object)
            flat[:] = content
        else:
            flat = np.frombuffer(content, kind.dtype)
        # as large as its bytes, whatever the shape says
        self.value = flat.reshape(shape, order="F" if by_columns else "C")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """An array as protocol 5 tells it."""
    if not isinstance(content, bytes | bytearray):  # of a number it would make so many bytes
        raise _NotPlainError(f"an array of a {type(content).__name__}")
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _scalar(kind: Any, content: Any = b"") -> Any:
    """A single number of NumPy's."""
    if not isinstance(kind, _Type) or not isinstance(content, bytes | str):
        raise _NotPlainError("a number of no type")
    data = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(data, kind.dtype, count=1)[0]


def _encode(text: Any, _: Any = "latin1") -> bytes:
    """Bytes as protocol 2 tells them."""
    if not isinstance(text, str):
        raise _NotPlainError(f"bytes of a {type(text).__name__}")
    return text.encode("latin1")


def _file_name(*parts: Any) -> str:
    """The last part of a path. Nothing is joined: texts would grow beyond what the file holds."""
    if not parts or not isinstance(parts[-1], str):
        raise _NotPlainError("a path without a name")
    return parts[-1]


class _StandIn:
    """What a file gets for a name: it can be called, but not changed as the real class or function could be."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *values: Any) -> Any:
        return self._make(*values)

    def __setstate__(self, state: Any) -> None:
        raise _NotPlainError("a change of what all files share")


_NUMPY = ("numpy.core", "numpy._core")


class _Unpickler(pickle.Unpickler):
    """Knows the few names that such files hold, and gives stand-ins for them that can do no harm."""

    names: ClassVar[dict[tuple[str, str], Any]] = {
        **{(f"{name}.multiarray", "_reconstruct"): _StandIn(_Array) for name in _NUMPY},
        **{(f"{name}.multiarray", "scalar"): _StandIn(_scalar) for name in _NUMPY},
        **{(f"{name}.numeric", "_frombuffer"): _StandIn(_from_buffer) for name in _NUMPY},
        ("numpy", "ndarray"): "an array",  # said to _reconstruct, and never called
        ("numpy", "dtype"): _StandIn(_Type),
        ("_codecs", "encode"): _StandIn(_encode),
        **{
            (place, name): _StandIn(_file_name)
            for place in ("pathlib", "pathlib._local")
            for name in ("PosixPath", "WindowsPath")
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, for the names that are known."""
        try:
            return self.names[module, name]
        except KeyError:
            raise _NotPlainError(f"the name {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lies elsewhere."""
        raise _NotPlainError("a part in another place")


def _load(data: bytes) -> Any:
    """What is in a ``.npy`` file of one object."""
    file = io.BytesIO(data)
    version = npy.read_magic(file)  # type: ignore[no-untyped-call]
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)  # type: ignore[no-untyped-call]
    if dtype != np.dtype(object) or shape != ():
        raise ValueError(f"an array of {dtype} and shape {shape} in place of a dictionary")
    stream = data[file.tell() :]
    _check_instructions(stream)
    return _Unpickler(io.BytesIO(stream), encoding="latin1").load()


def _check_instructions(stream: bytes) -> None:
    """Refuse what would take memory that the file does not fill, and what no such file needs.

    `genops` itself refuses texts and bytes that are longer than what is left of the file.
    """
    for instruction, value, _ in pickletools.genops(stream):
        if instruction.name in _REFUSED:
            raise _NotPlainError(f"the instruction {instruction.name}")
        if instruction.name in _MEMOS and int(value or 0) > len(stream):
            raise _NotPlainError(f"place {value} of a file of {len(stream)} bytes")
    _check_keys(stream)


def _check_keys(stream: bytes) -> None:
    """Refuse keys but texts and plain numbers, by following the kinds of values on the stack as `pickletools.dis` does.

    The hash of a tuple of tuples takes twice the time with every two bytes of the file.
    """
    mark, stack, memo = pickletools.markobject, list[Any](), dict[int, Any]()
    marks = list[int]()
    for instruction, value, _ in pickletools.genops(stream):
        name, before = instruction.name, instruction.stack_before
        after = list(instruction.stack_after)
        pops, above = len(before), list[Any]()
        if mark in before or (name == "POP" and stack[-1] is mark):
            start = marks.pop()
            above = stack[start + 1 :]
            del stack[start:]
            pops = before.index(mark) if mark in before else 0
        if name in ("SETITEM", "SETITEMS", "DICT"):
            for kind in stack[-2:-1] if name == "SETITEM" else above[::2]:
                if kind not in _PLAIN:
                    raise _NotPlainError(f"{kind.name} as a key")
        elif name == "DUP":
            after = [stack[-1]] * 2
        elif name in _FETCHES:
            after = [memo[int(value or 0)]]
        elif name in _MEMOS or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else int(value or 0)] = stack[-1]
            continue
        del stack[len(stack) - pops :]
        while marks and marks[-1] >= len(stack):
            marks.pop()
        marks += [len(stack) + at for at, kind in enumerate(after) if kind is mark]
        stack += after


def _plain(value: Any) -> Any:
    """A value without its stand-in; of an array of one object the object."""
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.flat[0]
    return value

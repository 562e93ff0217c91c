"""Models that Cellpose offers: by their names, from its folder, else fetched once from its server.

Names and address are those of Cellpose 3.1.1 (``cellpose/models.py``). Its server tells no hashes, so that of
a file is recorded when it is first seen, and held against the file each time it is used::

    MODELS/cyto3             as Cellpose itself would put it there
    MODELS/cellflow.json     size and SHA-256 of what cellflow has seen there
    MODELS/.cellflow.lock    while a process fetches a file
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import cache, partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from cellflow.errors import CheckpointError, DownloadError
from cellflow.storage.atomic import atomic_path, remove_leftovers, write_json
from cellflow.storage.locks import hold_lock
from cellflow.storage.nearby import is_file
from cellflow.storage.records import dict_or_empty, read_json

__all__ = ["model_file", "model_files", "models_folder"]

SERVER = "https://www.cellpose.org/models"
SERVER_VARIABLE = "CELLFLOW_MODEL_SERVER"
"""Environment variable with the address of another server, as of a mirror."""
RECORD, LOCK = "cellflow.json", ".cellflow.lock"

MEANT = {name: f"{name}torch_0" for name in ("cyto", "cyto2", "nuclei")} | {
    name: f"{name}_cp3"
    for name in (
        "tissuenet", "livecell", "yeast_PhC", "yeast_BF", "bact_phase", "bact_fluor", "deepbacs",
    )
}  # fmt: skip
"""Names people use, and the files that Cellpose 3 uses for them."""
FOURFOLD = ("cytotorch", "cyto2torch", "nucleitorch")
"""Models of versions 1 and 2 that are four networks, NAME_0 to NAME_3, to be averaged."""
MEMBERS = 4
OFFERED = (
    "cyto3",
    *MEANT.values(),
    *(f"{name}_{number}" for name in FOURFOLD for number in range(1, MEMBERS)),
    "cyto2_cp3", "neurips_cellpose_default", "neurips_grayscale_cyto2",
    "CP", "CPx", "TN1", "TN2", "TN3", "LC1", "LC2", "LC3", "LC4",
)  # fmt: skip
"""Files on the server that hold a U-Net."""
OTHERS = {
    r"cpsam.*": "a model of Cellpose 4, which has another network",
    r"transformer_cp3|neurips_cellpose_transformer": "a transformer, not a U-Net",
    r"(denoise|deblur|upsample|oneclick|aniso)_.*": "a model that restores images and finds no cells",
    r"size_.*": "a size model; cellflow fits its own (cellflow oof)",
    r".*_omni(torch_\d)?": "a model of Omnipose, which has other flows",
}
"""Names of what is not for cellflow, and why."""
_NO_MODELS = (".npy", ".json", ".txt")
"""Endings of what else lies in Cellpose's folder."""
_TORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Beginning of a file that an old torch wrote; newer files are zip archives."""

ShowProgress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Takes a title and a number of bytes; while its context lasts, it is told how many have come."""

TIMEOUT = 30.0
"""Seconds that a server may be silent."""
_CHUNK = 1 << 18

_log = logging.getLogger(__name__)


def models_folder() -> Path:
    """Cellpose's model folder: ``CELLPOSE_LOCAL_MODELS_PATH``, else ``~/.cellpose/models``."""
    told = os.environ.get("CELLPOSE_LOCAL_MODELS_PATH")
    return Path(told) if told else Path.home() / ".cellpose" / "models"


def _no_progress(title: str, size: int) -> nullcontext[Callable[[int], None]]:
    return nullcontext(lambda came: None)


def model_files(
    name: str, *, fetch: bool = True, show_progress: ShowProgress = _no_progress
) -> tuple[Path, ...]:
    """Model files given by path or by name; one, or four whose networks are averaged.

    Parameters
    ----------
    name : str
        Path of a file; name of a file in Cellpose's model folder; name of a model of Cellpose's
        (``cyto3``, ``nuclei``, ``livecell``, ...). Where there is no such file, but four with ``_0`` to
        ``_3`` behind the name, these are meant (``cytotorch``, as Cellpose 1 and 2 averaged them).
    fetch : bool
        Fetch a model of Cellpose's that is not in its folder. Nothing is fetched for an unknown name.
    show_progress : callable
        Shows how far that is.

    Raises
    ------
    DownloadError
        If a file is not there and cannot or may not be fetched: the message says what to put where.
    CheckpointError
        If there is no such file and no such model, or a file is not the one that was first seen.
    """
    path, folder = Path(name), models_folder()
    with suppress(RuntimeError):  # ~name where no such user is known
        path = path.expanduser()
    found = _at(path)
    if found:
        return found
    file = MEANT.get(name, name)
    if file != name:
        _say_meant(name, file)
    if name in FOURFOLD or file in OFFERED:
        wanted = _numbered(folder / name) if name in FOURFOLD else (folder / file,)
        return tuple(_offered(item, fetch, show_progress) for item in wanted)
    found = _at(folder / name)
    if not found:
        _refuse(name, path, folder)
    return found


def model_file(
    name: str, *, fetch: bool = True, show_progress: ShowProgress = _no_progress
) -> Path:
    """The one file that a name means; otherwise as `model_files`.

    Raises
    ------
    DownloadError, CheckpointError
        As `model_files`; or if the name means four files.
    """
    several = name in FOURFOLD and not is_file(Path(name))  # known before anything is fetched
    files = () if several else model_files(name, fetch=fetch, show_progress=show_progress)
    if len(files) == 1:
        return files[0]
    raise CheckpointError(
        f"{name} is a model of four networks, and a training starts from one: give {name}_0, or "
        f"another up to {name}_{MEMBERS - 1}.",
        expected=1, found=MEMBERS,
    )  # fmt: skip


def _at(start: Path) -> tuple[Path, ...]:
    """The file of this name, else the four with numbers behind it, else none."""
    if is_file(start):
        return (start,)
    four = _numbered(start)
    return four if all(map(is_file, four)) else ()


def _numbered(start: Path) -> tuple[Path, ...]:
    return tuple(Path(f"{start}_{number}") for number in range(MEMBERS))


@cache  # once is enough
def _say_meant(name: str, file: str) -> None:
    _log.info("%s means %s, the file that Cellpose 3 uses", name, file)


def _refuse(name: str, path: Path, folder: Path) -> NoReturn:
    """Say what there is instead of an unknown name."""
    for pattern, what in OTHERS.items():
        if re.fullmatch(pattern, name):
            raise CheckpointError(
                f"{name} is {what}. cellflow takes Cellpose's U-Nets, such as cyto3 and nuclei, and "
                "files of models that were trained from them."
            )
    with suppress(OSError):  # a text that is too long for a name
        if inside := sorted(path.glob("*.pt")):
            raise CheckpointError(
                f"{path} is a folder. Give a model file in it: {inside[0]}", path=path
            )
    places = {str(place): None for place in (path, folder / name)}
    parts = [item.name for start in places for item in _numbered(Path(start)) if is_file(item)]
    there = [item.name for item in folder.glob("[!.]*") if item.suffix not in _NO_MODELS]
    known = dict.fromkeys(["cyto3", *MEANT, *FOURFOLD, *OFFERED, *sorted(there)])
    near = difflib.get_close_matches(name, known, 3)
    raise CheckpointError(
        f"No model file {name!r}: looked for {' and '.join(places)}."
        + (f" Of four networks only {', '.join(parts)} are there." if parts else "")
        + (f" Did you mean {' or '.join(near)}?" if near else "")
        + " Give the path of a Cellpose 3 model file, or a name such as cyto3 or nuclei.",
        path=path, expected=", ".join(known), found=name,
    )  # fmt: skip


def _offered(path: Path, fetch: bool, show_progress: ShowProgress) -> Path:
    """A file of Cellpose's own, fetched where it is not in the folder, and the one first seen."""
    url = f"{os.environ.get(SERVER_VARIABLE, SERVER).rstrip('/')}/{path.name}"
    if not path.is_file():
        advice = (
            f"put that file into {path.parent} as {path.name}, or give the path of a model file "
            "instead of the name."
        )
        if not fetch:
            raise DownloadError(
                f"{path.name} is not in {path.parent}, and nothing is to be downloaded. It comes from "
                f"{url}: {advice}",
                path=path,
            )
        try:
            _fetch(url, path, show_progress)
        except DownloadError as error:
            text = f"{error} Try again later, or {advice}"
            raise DownloadError(text, **error.facts | {"path": path}) from None
    _compare(path)
    return path


def _fetch(url: str, path: Path, show_progress: ShowProgress) -> None:
    """Fetch a file, unless another process has just done so."""
    with _sole(path.parent):
        if path.is_file():
            return
        remove_leftovers(path.parent)
        _log.info("fetching %s into %s", url, path.parent)
        _download(url, path, check=partial(_check_came, path, url), show_progress=show_progress)
        _keep(path)


def _download(
    url: str, path: Path, *, check: Callable[[Path], None], show_progress: ShowProgress
) -> None:
    """Fetch a file; it is there in the end, complete and as `check` wants what came, or nothing is."""
    with closing(_open(url)) as answer, atomic_path(path) as temporary:
        told = answer.headers.get("Content-Length", "")
        size = int(told) if told.isdecimal() else 0
        came = 0
        with temporary.open("wb") as file, show_progress(f"fetching {path.name}", size) as show:
            for chunk in _chunks(answer, url):
                file.write(chunk)
                came += len(chunk)
                show(came)
        if size and came != size:
            text = f"{url}: {came} of {size} bytes came before the connection ended."
            raise DownloadError(text, path=path, expected=size, found=came)
        check(temporary)


def _open(url: str) -> HTTPResponse:
    try:
        answer: HTTPResponse = urlopen(url, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        text = f"{url}: the server answered {error.code} ({error.reason})."
        raise DownloadError(text, found=error.code) from None
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"{url} cannot be reached: {_reason(error)}.") from None
    return answer


def _chunks(answer: HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = answer.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url}: the connection broke: {_reason(error)}.") from None
        if not chunk:
            return
        yield chunk


def _reason(error: Exception) -> str:
    """What is wrong, without the brackets of Python's own texts."""
    inner = error.reason if isinstance(error, URLError) else error
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else inner
    return (str(text) or type(error).__name__).strip(" .<>")


@contextmanager
def _sole(folder: Path) -> Iterator[None]:
    """One process at a time works in the folder; the others wait."""
    lock = folder / LOCK
    try:
        with hold_lock(lock, f"The model folder {folder}", wait=True):
            try:
                yield
            finally:
                with suppress(OSError):  # whoever waits sees that it is gone, and makes another one
                    lock.unlink()
    except OSError as error:
        raise DownloadError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}); the environment "
            "variable CELLPOSE_LOCAL_MODELS_PATH names another folder for models.",
            path=folder,
        ) from None


def _check_came(path: Path, url: str, came: Path) -> None:
    """Make sure that what came is a model file, and the one that was there before, if there was one."""
    if not _is_torch_file(came):
        with came.open("rb") as file:
            page = file.read(512).lstrip()[:1] == b"<"
        raise DownloadError(
            f"{url}: what came is no model file but {'a web page' if page else 'something else'}. "
            "A proxy or a login page may stand between.",
            path=path,
        )
    told, found = _recorded(path), _identity(came)
    if told and told != found:
        raise DownloadError(
            f"{url}: what came ({_text(found)}) is not the file that was first seen ({_text(told)}, in "
            f"{path.with_name(RECORD)}). If Cellpose has published another one, remove {path.name} from "
            "there.",
            path=path, expected=told, found=found,
        )  # fmt: skip


def _is_torch_file(path: Path) -> bool:
    """Whether a whole file is one that torch wrote; nothing is unpickled."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(len(_TORCH_BEFORE_1_6)) == _TORCH_BEFORE_1_6
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return any(item.endswith("/data.pkl") for item in names) and archive.testzip() is None
    except Exception:  # of any kind: what it is depends on the damage
        return False


def _compare(path: Path) -> None:
    """Make sure that a file is the one first seen; where none was, it is this one."""
    told = _recorded(path)
    if not told:
        if _is_torch_file(path):  # of anything else, loading it says what it is
            with suppress(DownloadError), _sole(path.parent):  # a shared folder may be read-only
                _keep(path)
        return
    found = _identity(path)
    if told != found:
        raise CheckpointError(
            f"{path} ({_text(found)}) is not the file that was first seen there ({_text(told)}, in "
            f"{path.with_name(RECORD)}). Remove it, and it will be fetched again; if it was replaced on "
            f"purpose, remove {path.name} from {RECORD}.",
            path=path, expected=told, found=found,
        )  # fmt: skip


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _text(identity: dict[str, Any]) -> str:
    return f"{identity.get('size')} bytes, SHA-256 {str(identity.get('sha256'))[:12]}..."


def _recorded(path: Path) -> dict[str, Any]:
    """What was recorded of a file; nothing where the record is damaged."""
    return dict_or_empty((read_json(path.with_name(RECORD)) or {}).get(path.name))


def _keep(path: Path) -> None:
    record = path.with_name(RECORD)
    write_json(record, (read_json(record) or {}) | {path.name: _identity(path)})

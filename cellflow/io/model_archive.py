"""Archives of runs: one zip with all that a prediction needs, which is checked whole before it is used.

Members are the files of a run folder, under the same names; ``archive.json`` lists them with sizes and hashes.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from cellflow.errors import CheckpointError, DataError
from cellflow.storage.atomic import atomic_path
from cellflow.storage.hashing import hash_file
from cellflow.storage.records import dict_or_empty
from cellflow.storage.zips import ZIP_DAMAGES, names_in_zip

__all__ = ["MANIFEST", "is_archive", "unpacked_archive", "write_archive"]

MANIFEST = "archive.json"
FORMAT, VERSION = "cellflow-archive", 1
MAX_MEMBERS = 1000
MAX_BYTES = 16 * 2**30
MAX_RATIO = 200
"""Bytes that a byte of the file may become; JSON of style models shrinks to a third, zeros to a thousandth."""
_SMALL = 2**20
"""Members up to this size are not measured by their ratio."""
_NAME = re.compile(r"(?!\.)[^/\\:*?\"<>|\x00-\x1f]{1,200}(?<![. ])")
"""Names of files on any system, none of them hidden."""
_MEMBER = re.compile(rf"(?:{_NAME.pattern}/){{0,3}}{_NAME.pattern}")
"""Such names in up to three folders."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of all members: the same run gives the same file, and nothing tells when anybody worked."""
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compressions that are unpacked piece by piece; what others make of a piece has no bound."""
_STORED = (".pt",)
"""Endings of what does not shrink."""


def write_archive(path: Path, files: Mapping[str, Path], facts: Mapping[str, Any]) -> None:
    """Write files into a new archive, atomically.

    Parameters
    ----------
    path : Path
        File to write.
    files : mapping of str to Path
        Files by their names in the archive.
    facts : mapping
        JSON types; ``name`` is the name of the run. They stand in ``archive.json`` above the list of files.

    Raises
    ------
    DataError
        If a name could not be unpacked everywhere.
    """
    wrong = [name for name in files if not _MEMBER.fullmatch(name)]
    wrong += [facts["name"]] * (not _NAME.fullmatch(facts["name"]))
    if wrong:
        text = f"{path}: {wrong[0]!r} cannot be a name in an archive. Rename it: letters, digits and . _ + - will do."
        raise DataError(text, path=path, found=wrong[0])
    listed = {
        name: {"size": file.stat().st_size, "hash": hash_file(file)} for name, file in files.items()
    }
    manifest = {"format": FORMAT, "version": VERSION, **facts, "files": listed}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_member(MANIFEST), json.dumps(manifest, indent=2) + "\n")
        for name, file in files.items():
            with (
                file.open("rb") as source,
                archive.open(_member(name, file), "w", force_zip64=True) as to,
            ):
                shutil.copyfileobj(source, to, 1 << 20)


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of cellflow, whole or not; model files of torch are zips too."""
    return MANIFEST in names_in_zip(path)


@contextmanager
def unpacked_archive(path: Path) -> Iterator[Path]:
    """Yield a folder, named as the run, with the files of an archive; it is gone in the end.

    Raises
    ------
    CheckpointError
        If the archive is damaged or of a newer version, holds other files than it lists, files outside of its
        folder, or more or larger ones than a run has.
    """
    with TemporaryDirectory(prefix="cellflow-", ignore_cleanup_errors=True) as parent:
        try:
            with zipfile.ZipFile(path) as archive:
                items = _checked_members(path, archive)
                manifest = _manifest(path, archive, items)
                folder = Path(parent) / manifest["name"]
                for name, facts in manifest["files"].items():
                    _unpack(path, archive, items[name], folder / name, facts)
        except CheckpointError:
            raise
        except ZIP_DAMAGES as error:
            raise _damaged(path, str(error)) from None
        except OSError as error:  # a place in the file that is none, or a full disk: its text tells
            raise CheckpointError(f"{path} could not be unpacked: {error}", path=path) from None
        yield folder


def _member(name: str, file: Path | None = None) -> zipfile.ZipInfo:
    """What the table says of a member; a large one that would shrink more than is unpacked again is stored."""
    info = zipfile.ZipInfo(name, _DATE)
    shrinks = not name.endswith(_STORED)
    if shrinks and file is not None and (size := file.stat().st_size) > _SMALL:
        shrinks = size <= MAX_RATIO * len(zlib.compress(file.read_bytes())) // 2
    info.compress_type = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    return info


def _checked_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What is in an archive, by name, before anything of it is unpacked."""
    items = archive.infolist()
    if len(items) > MAX_MEMBERS:
        raise _damaged(path, f"expected at most {MAX_MEMBERS} files, found {len(items)}")
    total = sum(item.file_size for item in items)
    if total > MAX_BYTES:
        raise _damaged(path, f"expected at most {MAX_BYTES} bytes, found {total}")
    for item in items:
        if not _MEMBER.fullmatch(item.filename):
            raise _damaged(path, f"no name of a file of a run: {item.filename!r:.80}")
        if item.compress_type not in _KINDS:
            raise _damaged(
                path, f"{item.filename} is compressed in a way that archives of runs are not"
            )
        if item.file_size > max(_SMALL, MAX_RATIO * item.compress_size):
            raise _damaged(
                path, f"{item.filename} would grow {MAX_RATIO} times or more on unpacking"
            )
        if item.filename == MANIFEST and item.file_size > _SMALL:
            raise _damaged(path, f"{MANIFEST} is larger than {_SMALL} bytes")
    found = {item.filename: item for item in items}
    names = {name.casefold() for name in found}
    if len(names) < len(items):
        raise _damaged(path, "a name is there twice")
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if folders & names:
        raise _damaged(path, f"a file and a folder of one name: {min(folders & names)!r:.80}")
    return found


def _manifest(
    path: Path, archive: zipfile.ZipFile, items: Mapping[str, zipfile.ZipInfo]
) -> dict[str, Any]:
    """What an archive says of itself, if that is so."""
    try:
        manifest = dict_or_empty(json.loads(archive.read(MANIFEST)))
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"{MANIFEST}: {error}") from None
    if manifest.get("format") != FORMAT:
        raise _damaged(path, f"{MANIFEST}: expected the format {FORMAT}")
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: expected an archive of version {VERSION}, found {manifest.get('version')!r:.20}. "
            "Update cellflow: pip install --upgrade cellflow",
            path=path, expected=VERSION, found=manifest.get("version"),
        )  # fmt: skip
    name = manifest.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _damaged(path, f"{MANIFEST}: no name of a run: {name!r:.80}")
    listed = manifest.get("files")
    if not isinstance(listed, dict) or listed.keys() != items.keys() - {MANIFEST}:
        raise _damaged(path, f"it holds other files than {MANIFEST} lists")
    return manifest


def _unpack(
    path: Path, archive: zipfile.ZipFile, item: zipfile.ZipInfo, target: Path, facts: Any
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(item) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    expected, found = dict_or_empty(facts).get("hash"), hash_file(target)
    if expected != found:
        raise CheckpointError(
            f"{path}: {item.filename} is not the file that was put in (expected the hash {expected!r:.40}, "
            f"found {found}). Make the archive again with: cellflow export RUN --to archive",
            path=path, expected=expected, found=found,
        )  # fmt: skip


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is no whole archive of cellflow: {reason}. Fetch it again, or make it again with: "
        "cellflow export RUN --to archive",
        path=path,
    )

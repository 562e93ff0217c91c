"""Archives that nobody should unpack."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from cellflow.errors import CheckpointError, DataError
from cellflow.io.model_archive import MANIFEST, unpacked_archive, write_archive
from cellflow.storage.hashing import hash_file


def archive_of(path: Path, members: dict[str, bytes], *, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive whose list is right."""
    listed = {}
    for place, (name, data) in enumerate(members.items()):
        copy = path.with_name(f"{place}.bin")
        copy.write_bytes(data)
        listed[name] = {"size": len(data), "hash": hash_file(copy)}
    manifest = {"format": "cellflow-archive", "version": 1, "name": "r", "files": listed}
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_what_is_right_is_unpacked(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "a.zip", {"a/b": b"1", "a/c": b"2", "ab": b"3"})
    with unpacked_archive(path) as folder:
        assert folder.name == "r" and (folder / "a" / "c").read_bytes() == b"2"


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_without_a_bound(tmp_path: Path, kind: int) -> None:
    """The size that is declared bounds what is given out, not what bzip2 and LZMA make in memory."""
    path = archive_of(tmp_path / "a.zip", {"a": b"1"}, kind=kind)
    with (
        pytest.raises(CheckpointError, match=r"archive\.json is compressed in a way"),
        unpacked_archive(path),
    ):
        pass


@pytest.mark.parametrize("names", [("a", "a/b"), ("x/y/z", "X")])
def test_a_file_that_is_a_folder(tmp_path: Path, names: tuple[str, str]) -> None:
    path = archive_of(tmp_path / "a.zip", dict.fromkeys(names, b"1"))
    with (
        pytest.raises(CheckpointError, match="a file and a folder of one name"),
        unpacked_archive(path),
    ):
        pass


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = archive_of(tmp_path / "a.zip", {"a": b"1"})
    monkeypatch.setattr("cellflow.io.model_archive.shutil.copyfileobj", full)
    with pytest.raises(CheckpointError, match="No space left"), unpacked_archive(path):
        pass


@pytest.mark.parametrize("name", ["run:1", "run.", "exp?", "a" * 201])
def test_a_run_whose_name_no_archive_may_have(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    with pytest.raises(DataError, match="cannot be a name in an archive"):
        write_archive(tmp_path / "a.zip", {"a.json": file}, {"name": name})
    assert not (tmp_path / "a.zip").exists()


def test_what_shrinks_to_nearly_nothing_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[" + "0," * 2_000_000 + "0]")
    write_archive(tmp_path / "a.zip", {"a.json": file}, {"name": "a" * 200})
    with unpacked_archive(tmp_path / "a.zip") as folder:
        assert folder.name == "a" * 200
        assert (folder / "a.json").read_bytes() == file.read_bytes()

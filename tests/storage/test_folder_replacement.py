"""A folder that replaces another: the old or the new, whole, wherever the writing ends."""

from __future__ import annotations

import errno
import itertools
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faults import failing, folder_text, hidden, killed, write_folder
from skimage.io import imsave

from cellflow.config import FoldsConfig, PrepareConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import write_labels
from cellflow.storage import atomic
from cellflow.storage.atomic import (
    atomic_folder,
    atomic_path,
    remove_leftovers,
    restore_folder,
    scratch_folder,
    what_stands,
    write_text,
)

FOR_GOOD = 10**9


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_one_step_that_fails(tmp_path: Path, code: int) -> None:
    for at in itertools.count(1):
        out = tmp_path / f"{at}" / "out"
        write_folder(out, "old")
        with failing(at, code) as steps:
            try:
                write_folder(out, "new")
                stands = "new"  # what failed was the removal of the old one
            except OSError as error:
                stands = "old"
                assert error.filename == str(out)
                assert what_stands(out).startswith("The old one stands as it was.")
                assert ("What was written" in what_stands(out)) == any(out.parent.glob(".*.tmp"))
        if not steps.hit:
            break
        assert folder_text(out) == stands
        write_folder(out, "third")
        assert folder_text(out) == "third"
        assert names(out.parent) == ["out"]
    assert at > 12


@pytest.mark.parametrize("old", [True, False])
def test_a_disk_that_fails_for_good(tmp_path: Path, old: bool) -> None:
    """Also what would put things right fails: the next command does it."""
    for at in itertools.count(1):
        out = tmp_path / f"{at}" / "out"
        if old:
            write_folder(out, "old")
        with failing(at, errno.EIO, last=FOR_GOOD) as steps:
            try:
                write_folder(out, "new")
                said = ""
            except OSError:
                said = what_stands(out)
        if not steps.hit:
            break
        if "puts it back" in said:
            assert not out.exists()
            restore_folder(out)
            assert folder_text(out) == "old"
        elif "is in its place" in said:
            assert folder_text(out) == "new"
        elif said and old:
            assert said.startswith("The old one stands")
            assert folder_text(out) == "old"
        elif said:
            assert not out.exists() or folder_text(out) == "new"
        restore_folder(out)
        if out.parent.exists():
            assert names(out.parent) in (["out"], [])
        if old:
            assert folder_text(out) in ("old", "new")
    assert at > 8


def test_a_full_disk_leaves_no_empty_parents(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for at in itertools.count(1):
        with failing(at) as steps:
            try:
                write_text(tmp_path / "there" / "a" / "b" / "x.txt", "x")
            except OSError:
                if not (tmp_path / "there" / "a" / "b" / "x.txt").exists():
                    assert names(tmp_path / "there") == []
        if not steps.hit:
            break
        shutil.rmtree(tmp_path / "there" / "a", ignore_errors=True)
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "there" / "c" / "d"):
        raise OSError("full")
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "there" / "a" / "d"):
        raise OSError("full")
    assert names(tmp_path / "there") == ["a"]  # which others made


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_folder(tmp_path / "out"):
        (tmp_path / "source.tif").read_bytes()
    assert caught.value.filename == str(tmp_path / "source.tif")


# -------------------------------------------------------------------------------------------- kills


@pytest.mark.slow
@pytest.mark.parametrize("old", [True, False])
def test_killed_at_any_step(tmp_path: Path, old: bool) -> None:
    for at in itertools.count(1):
        out = tmp_path / f"{at}" / "out"
        if old:
            write_folder(out, "old")
        if not killed(at, write_folder, out, "new"):
            break
        restore_folder(out)
        if old or out.exists():
            assert folder_text(out) in ("old", "new")
        assert not out.parent.exists() or hidden(out.parent) == []
        write_folder(out, "third")
        assert names(out.parent) == ["out"]
    assert at > 9


def test_the_next_file_in_a_folder_takes_what_killed_ones_left_along(tmp_path: Path) -> None:
    write_text(tmp_path / "before" / "a.txt", "x")
    shutil.copytree(tmp_path / "before", tmp_path / "out")
    assert killed(2, write_text, tmp_path / "out" / "a.txt", "new")
    assert len(hidden(tmp_path / "out")) == 1
    write_text(tmp_path / "out" / "b.txt", "x")
    assert names(tmp_path / "out") == ["a.txt", "b.txt"]


@pytest.mark.slow
def test_an_empty_folder_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, "old")
    at = next(
        at for at in itertools.count(1) if killed(at, write_folder, out, "new") and not out.exists()
    )
    assert at
    out.mkdir()
    restore_folder(out)
    assert folder_text(out) == "old"


def test_what_a_living_process_owns_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_path(tmp_path / "x.txt") as file, atomic_folder(out) as folder:
        file.write_text("mine")
        (folder / "a").write_text("mine")
        with scratch_folder(out) as scratch:
            remove_leftovers(tmp_path)
            restore_folder(out)
            assert file.exists() and folder.exists() and scratch.exists()
    assert names(tmp_path) == ["out", "x.txt"]


def test_what_may_be_of_another_host_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks may not be seen here; but nobody takes seconds between two renames."""
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "far-away")
        with atomic_path(tmp_path / "x.txt") as file, atomic_folder(out) as folder:
            left = [
                shutil.copytree(folder, tmp_path / "kept"),
                shutil.copyfile(file, tmp_path / "k.txt"),
            ]
            places = folder, file
    for source, place in zip(left, places, strict=True):
        Path(source).rename(place)
    lock = tmp_path / places[0].name.replace(".tmp", ".lock")
    lock.touch()
    remove_leftovers(tmp_path)
    restore_folder(out)
    assert all(place.exists() for place in (*places, lock))
    monkeypatch.setattr(atomic, "_PATIENCE", 0.05)
    out.rename(tmp_path / places[0].name.replace(".tmp", ".old"))
    restore_folder(out)
    assert out.is_dir()


def test_a_reader_waits_for_a_writer_between_its_renames(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, "old")
    real, seen = Path.rename, []

    def slow(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            reader.start()
            time.sleep(0.1)
        return real(self, target)

    def read() -> None:
        restore_folder(out)
        seen.append(folder_text(out))

    reader = threading.Thread(target=read)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "rename", slow)
        write_folder(out, "new")
        reader.join()
    assert seen == ["new"]
    assert names(tmp_path) == ["out"]


# ------------------------------------------------------------------------------------------ prepare


def make_source(folder: Path, value: int) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    labels = np.zeros((16, 16), np.int32)
    labels[2:7, 2:7], labels[9:14, 9:14] = 1, 2
    for name in "ab":
        image = np.full((16, 16), value, np.uint8)
        image[0, 0] = ord(name)
        imsave(folder / "images" / f"{name}.png", image, check_contrast=False)
        write_labels(folder / "masks" / f"{name}.tif", labels)
    return folder


def gray(data: Path) -> int:
    """The value of all images of a dataset, which is opened and read whole."""
    dataset = Dataset.open(data)
    assert dataset.hash and len(dataset) == 2
    assert sorted(dataset.folds()) == [0, 1]
    (value,) = {
        int(dataset.image(name)[1, 1]) for name in dataset.ids if len(dataset.instances(name))
    }
    return value


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with two sources, and a dataset of the first one with folds."""
    place = tmp_path_factory.mktemp("prepare")
    for value in (1, 2):
        make_source(place / f"source{value}", value)
    prepare(PrepareConfig(source=place / "source1", out=place / "data"))
    make_folds(FoldsConfig(data=place / "data", k=2))
    return place


@pytest.mark.slow
def test_prepare_that_fails_at_any_step_keeps_the_old_dataset(first: Path, tmp_path: Path) -> None:
    for at in itertools.count(1):
        place = tmp_path / f"{at}"
        shutil.copytree(first / "data", place / "data")
        config = PrepareConfig(source=first / "source2", out=place / "data", overwrite=True)
        with failing(at, errno.EIO) as steps:
            try:
                prepare(config)
                stands = 2
            except DataError as error:
                stands = 1
                assert "The old one stands as it was." in str(error)
                assert "Nothing half-written" not in str(error)
        if not steps.hit:
            break
        assert gray(place / "data") == stands
        prepare(config)
        assert gray(place / "data") == 2
        assert names(place) == ["data"]
    assert at > 30


@pytest.mark.slow
def test_prepare_that_is_killed_is_repeated(first: Path, tmp_path: Path) -> None:
    """At every step of the end, where the new takes the place of the old, and at some of those before."""
    shutil.copytree(first / "data", tmp_path / "all" / "data")
    config = PrepareConfig(source=first / "source2", out=tmp_path / "all" / "data", overwrite=True)
    with failing(None) as steps:
        prepare(config)
    for at in [*range(1, steps.count - 28, 9), *range(steps.count - 28, steps.count + 1)]:
        place = tmp_path / f"{at}"
        shutil.copytree(first / "data", place / "data")
        assert killed(at, prepare, replace(config, out=place / "data"))
        assert gray(place / "data") in (1, 2)  # as any reader finds it
        prepare(replace(config, out=place / "data"))
        assert gray(place / "data") == 2
        assert names(place) == ["data"]


def test_a_new_dataset_killed_at_any_step_is_prepared_by_the_same_command(
    first: Path, tmp_path: Path
) -> None:
    for at in itertools.count(1, 7):
        config = PrepareConfig(source=first / "source2", out=tmp_path / f"{at}" / "data")
        if not killed(at, prepare, config):
            break
        if config.out.exists():  # it was killed after the end, so to say
            with pytest.raises(DataError, match="exists already"):
                prepare(config)
        else:
            prepare(config)
        assert len(Dataset.open(config.out)) == 2
        assert names(config.out.parent) == ["data"]
    assert at > 30


def test_a_link_stays_and_here_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")
    for place, text in ((tmp_path / "data", "one"), (Path(), "two")):
        monkeypatch.chdir(tmp_path / "data")  # the folder that was here before is gone
        with atomic_folder(place, replace=True) as folder:
            (folder / "file").write_text(text)
        monkeypatch.chdir(tmp_path)
        assert (tmp_path / "disk" / "data" / "file").read_text() == text
    assert (tmp_path / "data").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["data"]

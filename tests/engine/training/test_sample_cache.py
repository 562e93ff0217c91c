"""Cached samples: what was computed is what is read, never stale, whole or absent, flat in memory."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from cellflow.config import PrepareConfig
from cellflow.engine.data.prepare import prepare
from cellflow.engine.training import sample_cache as samples
from cellflow.engine.training.sample_cache import MIN_DIAMETER, CachedSamples, cache_samples
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import write_labels
from cellflow.nn.dataset import CropDataset, Slot
from cellflow.numeric.labels import median_diameter
from cellflow.numeric.normalize import normalize_percentile, select_channels
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.atomic import atomic_path
from cellflow.synthetic import synthetic_image


def source(folder: Path, n: int = 3, shape: tuple[int, int] = (96, 112)) -> Path:
    """Images and masks as a person would bring them."""
    (folder / "images").mkdir(parents=True)
    for index in range(n):
        image, labels = synthetic_image("round", shape=shape, seed=index)
        (folder / "images" / f"im{index}.png").write_bytes(imagecodecs.png_encode(image))
        write_labels(folder / "masks" / f"im{index}.tif", labels)
    return folder


def prepared(folder: Path, n: int = 3, shape: tuple[int, int] = (96, 112)) -> Dataset:
    return prepare(PrepareConfig(source=source(folder / "source", n, shape), out=folder / "data"))


def cached(dataset: Dataset, **channels: int) -> CachedSamples:
    return cache_samples(dataset, dataset.ids, **{"chan": 0, "chan2": 0, **channels})


def files(dataset: Dataset) -> dict[str, int]:
    """Everything in the cache with the time it was written."""
    return {item.name: item.stat().st_mtime_ns for item in (dataset.path / "cache").iterdir()}


def assert_right(read: CachedSamples, dataset: Dataset) -> None:
    assert read.ids == tuple(dataset.ids)
    for index, name in enumerate(read.ids):
        image, target, diameter, ignored, is_soft = read(index)
        assert ignored is None
        assert not is_soft
        labels = dataset.labels(name)
        wanted = normalize_percentile(select_channels(dataset.image(name)))[:1]
        np.testing.assert_array_equal(image, wanted)
        np.testing.assert_array_equal(target[0], labels)
        np.testing.assert_array_equal(target[1:], labels_to_flows(labels))
        assert image.dtype == target.dtype == np.float32
        assert target.flags.c_contiguous
        assert diameter == max(MIN_DIAMETER, median_diameter(labels))


def test_cold_and_warm_give_what_was_computed(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 7)
    assert_right(cached(dataset), dataset)
    before = files(dataset)
    assert len(before) == 14
    assert_right(cached(Dataset.open(dataset.path)), dataset)
    assert files(dataset) == before, "nothing is written twice"


@pytest.mark.parametrize("numbers", [[], [1], [70_000, 1], [65_535, 65_536]])
def test_what_is_stored_unpacks_to_the_bit(
    tmp_path: Path, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images without cells, and with more cells than uint16 can number."""
    labels = np.zeros((40, 50), np.int32)
    for index, number in enumerate(numbers):
        labels[5:15, 20 * index + 2 : 20 * index + 17] = number
    dataset = prepared(tmp_path, 1)
    monkeypatch.setattr(Dataset, "labels", lambda self, name: labels)
    monkeypatch.setattr(samples, "labels_from_instances", lambda instances: labels)
    target = cached(dataset)(0).target
    wanted = np.concatenate([labels[np.newaxis].astype(np.float32), labels_to_flows(labels)])
    assert target.tobytes() == wanted.tobytes()


def test_order_of_the_ids_is_kept(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 5)
    asked = ["im3", "im0", "im4"]
    read = cache_samples(dataset, asked, chan=0, chan2=0)
    assert read.ids == tuple(asked)
    for index, name in enumerate(asked):
        np.testing.assert_array_equal(read(index).target[0], dataset.labels(name))


def test_no_ids(tmp_path: Path) -> None:
    assert len(cache_samples(prepared(tmp_path, 1), [], chan=0, chan2=0)) == 0


def test_channels_have_files_of_their_own(tmp_path: Path) -> None:
    folder = source(tmp_path / "source", 1)
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (96, 112, 3), dtype=np.uint8)
    (folder / "images" / "im0.png").write_bytes(imagecodecs.png_encode(colour))
    dataset = prepare(PrepareConfig(source=folder, out=tmp_path / "data"))
    grey, two = cached(dataset), cached(dataset, chan=1, chan2=3)
    assert grey(0).image.shape == (1, 96, 112)
    assert two(0).image.shape == (2, 96, 112)
    assert grey.targets == two.targets


# ------------------------------------------------------------------------------------ never stale


def test_changed_image_is_computed_anew(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 2)
    old = cached(dataset)
    folder = tmp_path / "source"
    image, _ = synthetic_image("spindle", shape=(96, 112), seed=77)
    (folder / "images" / "im1.png").write_bytes(imagecodecs.png_encode(image))
    kept = tmp_path / "kept"
    shutil.copytree(dataset.path / "cache", kept)
    dataset = prepare(PrepareConfig(source=folder, out=dataset.path, overwrite=True))
    shutil.copytree(kept, dataset.path / "cache")  # even if the old files were still there
    new = cached(dataset)
    assert new.images[0] == old.images[0]
    assert new.images[1] != old.images[1]
    assert new.targets == old.targets
    assert_right(new, dataset)


def test_changed_labels_are_computed_anew(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 2)
    old = cached(dataset)
    folder = tmp_path / "source"
    labels = dataset.labels("im1")
    labels[labels == 1] = 0
    write_labels(folder / "masks" / "im1.tif", labels)
    kept = tmp_path / "kept"
    shutil.copytree(dataset.path / "cache", kept)
    dataset = prepare(PrepareConfig(source=folder, out=dataset.path, overwrite=True))
    shutil.copytree(kept, dataset.path / "cache")
    new = cached(dataset)
    assert new.images == old.images
    assert new.targets[0] == old.targets[0]
    assert new.targets[1] != old.targets[1]
    assert_right(new, dataset)


def test_image_changed_behind_our_back_is_refused(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 2)
    cached(dataset)
    before = files(dataset)
    image, _ = synthetic_image("round", shape=(96, 112), seed=99)
    (dataset.path / "images" / "im1.png").write_bytes(imagecodecs.png_encode(image))
    with pytest.raises(DataError, match="the image 'im1' is not what `cellflow prepare` wrote"):
        cached(dataset)
    assert files(dataset) == before


def test_labels_changed_behind_our_back_are_refused(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 2)
    cached(dataset)
    before = files(dataset)
    write_labels(dataset.path / "labels" / "im0.tif", dataset.labels("im0")[::-1])
    with pytest.raises(DataError, match="the label map of 'im0' is not what"):
        cached(dataset)
    assert files(dataset) == before


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_missing_file_is_named(tmp_path: Path, folder: str) -> None:
    dataset = prepared(tmp_path, 2)
    cached(dataset)
    (lost,) = (dataset.path / folder).glob("im1.*")
    lost.unlink()
    with pytest.raises(DataError, match=rf"{lost.name}: cannot be read \(No such file"):
        cached(dataset)


# -------------------------------------------------------------------------------- whole or absent


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage"])
def test_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    dataset = prepared(tmp_path, 2)
    read = cached(dataset)
    for path in (read.images[0], read.targets[1]):
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[:-500], "garbage": b"x" * 999}[damage])
    assert_right(cached(dataset), dataset)


def test_first_error_in_the_order_of_ids(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 6)
    for name in ("im5", "im2", "im4"):
        (dataset.path / "labels" / f"{name}.tif").unlink()
    for _ in range(5):
        with pytest.raises(DataError, match=r"im2\.tif"):
            cached(dataset)


def test_an_error_ends_the_work_soon_and_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepared(tmp_path, 30)
    (dataset.path / "images" / "im0.png").unlink()
    begun: list[str] = []
    real = samples._target

    def slow(dataset: Dataset, name: str) -> Any:
        begun.append(name)
        time.sleep(0.05)
        return real(dataset, name)

    monkeypatch.setattr(samples, "_target", slow)
    with pytest.raises(DataError):
        cached(dataset)
    assert len(begun) < 20
    assert not [name for name in files(dataset) if ".tmp" in name]
    assert not [item for item in threading.enumerate() if "cellflow-samples" in item.name]


def test_interrupt_drops_what_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepared(tmp_path, 30)
    begun: list[str] = []
    real = samples._target

    def slow(dataset: Dataset, name: str) -> Any:
        begun.append(name)
        time.sleep(0.05)
        return real(dataset, name)

    def interrupted(items: Any, *words: Any, **options: Any) -> Any:
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(samples, "_target", slow)
    monkeypatch.setattr(samples, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(dataset)
    assert len(begun) < 20
    assert not [name for name in files(dataset) if ".tmp" in name]


def test_full_disk_is_said_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = prepared(tmp_path, 3)

    def full(path: Path) -> Any:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(samples, "atomic_path", full)
    with pytest.raises(OSError, match=r"No space left on device.*cache") as caught:
        cached(dataset)
    assert caught.value.errno == 28
    monkeypatch.setattr(samples, "atomic_path", atomic_path)
    assert_right(cached(dataset), dataset)


def _cache_in_process(path: Path, start: Any, results: Any) -> None:
    dataset = Dataset.open(path)
    start.wait()
    try:
        read = cached(dataset)
        results.put(sorted(str(item) for item in (*read.images, *read.targets)))
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 12)
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_cache_in_process, args=(dataset.path, start, results))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert isinstance(found[0], list), found
    assert found[0] == found[1]
    assert len(files(dataset)) == 24, "no temporary file is left"
    assert_right(cached(dataset), dataset)


# ---------------------------------------------------------------------------- read-only, and memory


def test_read_only_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = prepared(tmp_path, 2)
    make = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if dataset.path in self.parents:
            raise OSError(30, "Read-only file system", str(self))
        make(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    read = cached(dataset)
    assert_right(read, dataset)
    assert not (dataset.path / "cache").exists()
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.name.startswith("cellflow-cache-")
    assert folder.stat().st_mode & 0o077 == 0
    assert set(read.images) | set(read.targets) == set(folder.iterdir())


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_read_only_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = prepared(tmp_path, 1)
    (dataset.path / "cache").mkdir(mode=0o555)
    access = os.access
    monkeypatch.setattr(  # root may write everywhere
        os, "access", lambda path, mode: Path(path).name != "cache" and access(path, mode)
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cached(dataset).images[0].parent.name.startswith("cellflow-cache-")


def anonymous_memory() -> int:
    """Bytes of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon in /proc/self/status")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, 1, (512, 512))
    one = cached(dataset)
    names = [tmp_path / str(number) for number in range(300)]
    for name in names:  # files of their own: 0.6 GB, if they were held
        os.link(one.images[0], name.with_suffix(".image.npy"))
        os.link(one.targets[0], name.with_suffix(".target.npy"))
    many = CachedSamples(
        tuple(name.name for name in names),
        tuple(name.with_suffix(".image.npy") for name in names),
        tuple(name.with_suffix(".target.npy") for name in names),
        one.diameters * 300,
    )
    crops = CropDataset(many, seed=0, fold=0, diam_mean=30.0, size=224, scale_range=0.5)
    for number in range(40):
        crops[Slot(0, number, number)]
    before = anonymous_memory()
    for number in range(300):
        crops[Slot(1, number, number)]
    assert anonymous_memory() - before < 20e6
    assert Path("/proc/self/maps").read_text().count(".target.npy") <= 1, "maps are closed"

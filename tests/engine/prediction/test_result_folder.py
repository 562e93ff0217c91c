from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.io import imsave
from torch import nn

from cellflow.config import MaskConfig
from cellflow.engine.exports import plain, submission
from cellflow.engine.prediction import image_writer, result_folder, result_record
from cellflow.engine.prediction.image_pass import ImagesDone
from cellflow.engine.prediction.predict_images import predict_images
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.runtime.pipeline import THREAD_NAME
from cellflow.engine.segmentation import segmenter as segment
from cellflow.engine.segmentation.cell_table import CELL_COLUMNS, measure_cells
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError, RunError
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.submission import read_submission
from cellflow.io.image_source import ImageReaders, find_images
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.nn.networks import Network, UNet
from cellflow.nn.runners import TorchRunner
from cellflow.numeric.labels import outlines
from cellflow.numeric.rle import rles_from_labels
from cellflow.storage import locks
from cellflow.synthetic import synthetic_dataset

IDENTITY: dict[str, Any] = {"members": ["aaaa", "bbbb"], "mask": {"flow_threshold": 0.0}}
ALL = {"masks", "submission", "cells", "outlines"}
NO_MASKS = {"submission", "cells"}
EVERY = [
    ALL,
    NO_MASKS,
    {"masks", "cells"},
    {"cells", "outlines"},
    {"masks", "submission"},
    {"submission"},
    {"outlines"},
]
NAMES = ("a", "b,1", "empty", "d e", "ü")
WRITERS = {
    "write_labels": image_writer,
    "write_outlines": plain,
    "write_submission": submission,
}
Read = Callable[[], NDArray[Any]]


def joined(exports: Set[str]) -> str:
    return "+".join(sorted(exports))


class BrightNet(Network):
    """Bright pixels are cells, and flow uphill."""

    style_size = 256

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls, self.broken = 0, False

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        smooth = nn.functional.avg_pool2d(batch[:, :1], 9, stride=1, padding=4)
        flow = torch.stack(torch.gradient(smooth[:, 0], dim=(1, 2)), 1)
        flow = 5 * flow / flow.norm(dim=1, keepdim=True).clamp(min=1e-6)
        logit = smooth * torch.nan if self.broken else smooth - 0.4
        return torch.cat([flow, logit], 1), torch.ones(len(batch), 256)


def segmenter_of(net: nn.Module, chan: int = 0) -> Segmenter:
    mask = MaskConfig(flow_threshold=0.0)
    return Segmenter(
        [Member("bright", TorchRunner(net.eval()), chan, 0, 17.0, 17.0)], mask, cell_type="cort"
    )


def pictures() -> dict[str, NDArray[Any]]:
    """Small images with cells, and one without."""
    items = synthetic_dataset(len(NAMES), shape=(64, 66), seed=3, per_group=1)
    found = dict(zip(NAMES, (np.asarray(item.image) for item in items), strict=True))
    return found | {"empty": np.zeros((40, 50), np.uint8)}


PICTURES = pictures()


def readers_of(names: tuple[str, ...] = NAMES) -> ImageReaders:
    return {name: lambda name=name: PICTURES[name] for name in names}  # type: ignore[misc]


def predict(
    path: Path,
    readers: ImageReaders | None = None,
    *,
    exports: set[str] = ALL,
    net: nn.Module | None = None,
    chan: int = 0,
    **opening: Any,
) -> ImagesDone:
    """One command."""
    segmenter = segmenter_of(net or BrightNet(), chan)
    images = readers_of() if readers is None else readers
    with ResultFolder.open(path, IDENTITY, exports=exports, **opening) as folder:
        return predict_images(segmenter, images, folder, title="predict")


def tree(path: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    files = (item for item in path.rglob("*") if item.is_file() and item.name != ".lock")
    return {str(item.relative_to(path)): item.read_bytes() for item in files}


def stops(error: BaseException) -> Read:
    def read() -> NDArray[Any]:
        raise error

    return read


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """Files of a pass that nothing interrupts, by what is exported and which images are asked for."""
    known: dict[Any, dict[str, bytes]] = {}

    def files(exports: set[str], names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
        key = frozenset(exports), names
        if key not in known:
            path = tmp_path_factory.mktemp("fresh") / "result"
            predict(path, readers_of(names), exports=exports)
            known[key] = tree(path)
        return known[key]

    return files


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


def test_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "result"
    summary = predict(path)
    expected = {name: segmenter_of(BrightNet()).predict(PICTURES[name]) for name in NAMES}
    assert summary.failed == {}
    assert list(summary.cells) == list(NAMES)
    assert summary.cells["empty"] == 0
    assert sum(summary.cells.values()) > len(NAMES)
    tables = []
    for name, result in expected.items():
        labels = read_labels(path / "masks" / f"{name}.tif")
        np.testing.assert_array_equal(labels, result.labels)
        assert summary.cells[name] == labels.max()
        table = measure_cells(
            labels, intensity=PICTURES[name], cellprob=result.cellprob,
            disagreement=result.disagreement, cell_type="cort", diameter=17.0,
        )  # fmt: skip
        table.insert(0, "id", name)
        tables.append(table)
        picture = read_image(path / "outlines" / f"{name}.png")
        assert picture.shape == (*labels.shape, 3)
        assert len(np.unique(picture[outlines(labels)], axis=0)) == (labels.max() > 0)
    cells = pd.read_csv(path / "cells.csv", dtype={"id": str})
    assert list(cells.columns) == ["id", *CELL_COLUMNS]
    full = pd.concat([table for table in tables if len(table)], ignore_index=True)
    pd.testing.assert_frame_equal(cells, full, check_dtype=False, rtol=1e-12)
    rows = read_submission(path / "submission.csv")
    assert list(rows) == list(NAMES)
    assert rows == {name: rles_from_labels(result.labels) for name, result in expected.items()}
    predicted = read_source(path / "submission.csv", ReadOptions("prediction")).images
    for name, image in predicted.items():
        image.labels(PICTURES[name].shape)
    record = json.loads((path / "prediction.json").read_text())
    assert record["identity"] == IDENTITY
    assert record["cells"] == summary.cells
    there = {item.name for item in path.iterdir()}
    wanted = {"masks", "outlines", "cells.csv", "submission.csv", "prediction.json", ".lock"}
    assert there == wanted


@pytest.mark.parametrize("exports", EVERY, ids=joined)
def test_only_what_was_asked_for_is_written(
    tmp_path: Path, exports: set[str], fresh: Callable[..., dict[str, bytes]]
) -> None:
    path, everything = tmp_path / "result", fresh(ALL)
    net = BrightNet()
    summary = predict(path, exports=exports, net=net)
    found = tree(path)
    parts = {
        "masks": "masks" in exports,
        "outlines": "outlines" in exports,
        "cells.csv": "cells" in exports,
        "submission.csv": "submission" in exports,
    }
    wanted = {
        name: content
        for name, content in everything.items()
        if parts.get(Path(name).parts[0], False)
    }
    assert {name: found[name] for name in found if name != "prediction.json"} == wanted
    # Known as finished: nothing is predicted or written again.
    stamps = {item: item.stat().st_mtime_ns for item in path.rglob("*") if item.name != ".lock"}
    assert predict(path, exports=exports, net=net) == summary
    assert net.calls == len(NAMES)
    assert stamps.items() <= {item: item.stat().st_mtime_ns for item in path.rglob("*")}.items()


@pytest.mark.parametrize("exports", [ALL, NO_MASKS], ids=joined)
@pytest.mark.parametrize(
    ("place", "error"), [(0, KeyboardInterrupt()), (2, OSError(5, "I/O")), (4, KeyboardInterrupt())]
)
def test_interrupted_while_reading_and_continued(
    tmp_path: Path,
    exports: set[str],
    place: int,
    error: BaseException,
    fresh: Callable[..., dict[str, bytes]],
) -> None:
    path, net = tmp_path / "result", BrightNet()
    with pytest.raises(type(error)):
        predict(path, readers_of() | {NAMES[place]: stops(error)}, exports=exports, net=net)
    assert not (path / "cells.csv").exists()
    assert net.calls == place
    with ResultFolder.open(path, IDENTITY, exports=exports) as folder:
        done = folder.done()
    assert done == set(NAMES[: len(done)])
    # An error comes at its turn; Ctrl-C waits for nobody, not for a mask step that has not begun either.
    assert place - len(done) in ((0, 1) if isinstance(error, KeyboardInterrupt) else (0,))
    summary = predict(path, exports=exports, net=net)
    assert net.calls == place + len(NAMES) - len(done)
    assert list(summary.cells) == list(NAMES)
    assert tree(path) == fresh(exports)


@pytest.mark.parametrize("exports", [ALL, NO_MASKS], ids=joined)
@pytest.mark.parametrize("broken", ["write_labels", "write_outlines", "write_submission"])
def test_a_full_disk_ends_the_pass(
    tmp_path: Path,
    exports: set[str],
    broken: str,
    fresh: Callable[..., dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if broken == "write_outlines" and "outlines" not in exports:
        return
    place = WRITERS[broken]
    real, calls = getattr(place, broken), []

    def fail(*args: Any) -> Any:
        calls.append(args[0])
        if len(calls) == (1 if broken == "write_submission" else 3):
            raise OSError(28, "No space left on device")
        return real(*args)

    path = tmp_path / "result"
    with monkeypatch.context() as patched:
        patched.setattr(place, broken, fail)
        with pytest.raises(OSError, match="No space"):
            predict(path, exports=exports)
    with ResultFolder.open(path, IDENTITY, exports=exports) as folder:
        done = folder.done()
    if broken == "write_submission":
        assert done == set(NAMES)
    else:  # the image after the one that failed may have been under way
        assert set(NAMES[:2]) <= done
        assert NAMES[2] not in done
    predict(path, exports=exports)
    assert tree(path) == fresh(exports)


@pytest.mark.slow
def test_killed_and_continued(tmp_path: Path, fresh: Callable[..., dict[str, bytes]]) -> None:
    """A real process and SIGKILL, while the fourth image is read and the others are under way."""
    path = tmp_path / "result"
    command = [sys.executable, str(Path(__file__).resolve()), str(path), NAMES[3]]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr
    # as a kill inside a write on this host leaves it
    (path / "masks" / f".{locks._host()}abcd.tmp.tif").write_bytes(b"half")
    net = BrightNet()
    predict(path, net=net)
    assert 1 <= net.calls <= len(NAMES)
    assert tree(path) == fresh(ALL)


def break_finish(patched: pytest.MonkeyPatch, step: str) -> None:
    """A failure after some step of `finish`."""
    places: dict[str, tuple[ModuleType, str]] = {
        "cells": (submission, "write_submission"),
        "submission": (result_record, "write_json"),
        "record": (result_folder, "_remove"),
    }
    module, name = places[step]

    def fail(*args: Any, **rest: Any) -> Any:
        if name == "_remove":  # of several files, one is gone
            for item in sorted(args[0].glob("*"))[:1]:
                item.unlink()
        raise OSError(28, "No space left on device")

    patched.setattr(module, name, fail)


PASSES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(NAMES), unique=True, min_size=1),
        st.sampled_from(["", "", "unreadable", "read", "cells", "submission", "record"]),
        st.integers(0, 4),
    ),
    max_size=4,
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(exports=st.sampled_from(EVERY), passes=PASSES)
def test_whatever_happened_before_the_last_pass_makes_it_the_same(
    tmp_path: Path, exports: set[str], passes: Any, fresh: Callable[..., dict[str, bytes]]
) -> None:
    """Other images, other orders, failures in reading and in every step of the end."""
    path = tmp_path / "result"
    shutil.rmtree(path, ignore_errors=True)
    for names, problem, place in passes:
        readers, bad = readers_of(tuple(names)), names[place % len(names)]
        if problem == "unreadable":
            readers[bad] = stops(DataError("damaged"))
        elif problem == "read":
            readers[bad] = stops(OSError(28, "No space left on device"))
        with pytest.MonkeyPatch.context() as patched:
            if problem in ("cells", "submission", "record"):
                with ResultFolder.open(path, IDENTITY, exports=exports):
                    pass  # the record of a new folder is not what is to fail
                break_finish(patched, problem)
            try:
                summary = predict(path, readers, exports=exports)
            except OSError:
                continue
        assert list(summary.cells) == [name for name in names if name not in summary.failed]
    summary = predict(path, exports=exports)
    assert list(summary.cells) == list(NAMES)
    assert tree(path) == fresh(exports)


@pytest.mark.parametrize("exports", EVERY, ids=joined)
def test_images_that_come_later_or_go(
    tmp_path: Path, exports: set[str], fresh: Callable[..., dict[str, bytes]]
) -> None:
    path, net = tmp_path / "result", BrightNet()
    predict(path, readers_of(NAMES[1:4]), exports=exports, net=net)
    predict(path, exports=exports, net=net)
    assert net.calls == len(NAMES)
    assert tree(path) == fresh(exports)
    fewer = NAMES[3:0:-2]
    summary = predict(path, readers_of(fewer), exports=exports, net=net)
    assert net.calls == len(NAMES)
    assert list(summary.cells) == list(fewer)
    for name, content in fresh(exports, fewer).items():
        assert (path / name).read_bytes() == content


def test_what_was_deleted_is_made_again(
    tmp_path: Path, fresh: Callable[..., dict[str, bytes]]
) -> None:
    path, net = tmp_path / "result", BrightNet()
    predict(path)
    for gone, calls in (
        ("submission.csv", 0),
        ("masks/a.tif", 0),
        ("outlines/empty.png", 0),
        ("cells.csv", len(NAMES)),
    ):
        net.calls = 0
        (path / gone).unlink()
        predict(path, net=net)
        assert net.calls == calls, gone
        assert tree(path) == fresh(ALL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five files of which three can be predicted by a network that wants the third channel."""
    folder = tmp_path / "source"
    folder.mkdir()
    colours = {name: np.stack([PICTURES["a"]] * 3, -1) for name in ("good1", "good2", "good3")}
    for name, image in colours.items():
        imsave(folder / f"{name}.png", image, check_contrast=False)
    (folder / "cut.png").write_bytes((folder / "good1.png").read_bytes()[:300])
    (folder / "good1a.tif").write_bytes(b"")
    two = np.stack([PICTURES["a"]] * 2)
    tifffile.imwrite(folder / "channels.tif", two, metadata={"axes": "CYX"})
    return folder


def test_images_that_cannot_be_read_do_not_stop_the_others(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, readers = tmp_path / "result", find_images(source)
    with caplog.at_level(logging.WARNING, "cellflow"):
        summary = predict(path, readers, chan=3)
    assert list(summary.cells) == ["good1", "good2", "good3"]
    assert list(summary.failed) == ["channels", "cut", "good1a"]
    assert "expected 0 to 2" in summary.failed["channels"]
    assert "cut.png: damaged" in summary.failed["cut"]
    assert "good1a.tif: the file is empty" in summary.failed["good1a"]
    (record,) = caplog.records
    assert "3 of 6 images could not be predicted" in record.getMessage()
    for name, message in summary.failed.items():
        assert f"{name}: {message}" in record.getMessage()
    assert list(read_submission(path / "submission.csv")) == list(summary.cells)
    assert (path / ".parts").is_dir()
    for name in summary.failed:
        for item in source.glob(f"{name}.*"):
            item.unlink()
        shutil.copy(source / "good2.png", source / f"{name}.png")
    net = BrightNet()
    summary = predict(path, find_images(source), chan=3, net=net)
    assert (len(summary.cells), summary.failed, net.calls) == (6, {}, 3)
    predict(tmp_path / "other", find_images(source), chan=3)
    assert tree(path) == tree(tmp_path / "other")


@pytest.mark.parametrize("stage", ["network", "mask step", "writing"])
@pytest.mark.parametrize("bad", [(0, 2), (1, 2, 4), (0, 1, 2, 3, 4)])
def test_images_that_are_refused_do_not_stop_the_others(
    tmp_path: Path,
    stage: str,
    bad: tuple[int, ...],
    fresh: Callable[..., dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a network that puts out NaN, or by a step after it."""
    path = tmp_path / "result"
    net, wrong = BrightNet(), {NAMES[place] for place in bad}
    segmenter = segmenter_of(net)
    real_average, real_labels = Segmenter._average, segment.make_labels
    refused: list[bool] = []

    def average(self: Segmenter, key: str, item: Any) -> Any:
        net.broken = stage == "network" and key in wrong
        refused.append(key in wrong)
        return real_average(self, key, item)

    def labels(*args: Any) -> Any:
        if stage == "mask step" and any(np.array_equal(args[1], logit) for logit in logits):
            raise DataError("no mask")
        return real_labels(*args)

    def write(place: Path, *values: Any) -> None:
        if stage == "writing" and place.stem in wrong:
            raise DataError("no labels")
        write_labels(place, *values)

    logits = [segmenter.predict(PICTURES[name]).cellprob for name in wrong]
    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "_average", average)
        patched.setattr(segment, "make_labels", labels)
        patched.setattr(image_writer, "write_labels", write)
        with ResultFolder.open(path, IDENTITY, exports=ALL) as folder:
            summary = predict_images(segmenter, readers_of(), folder, title="predict")
            assert folder.done() == set(NAMES) - wrong
    assert list(summary.failed) == [name for name in NAMES if name in wrong]
    assert list(summary.cells) == [name for name in NAMES if name not in wrong]
    message = {"network": "not a number", "mask step": "no mask", "writing": "no labels"}[stage]
    assert all(message in text for text in summary.failed.values())
    assert list(read_submission(path / "submission.csv")) == list(summary.cells)
    predict(path)
    assert tree(path) == fresh(ALL)


def test_the_warning_lists_at_most_20(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    readers = {str(number): stops(DataError(f"bad {number}.")) for number in range(33)}
    with caplog.at_level(logging.WARNING, "cellflow"):
        summary = predict(tmp_path / "result", readers)
    assert (summary.cells, len(summary.failed)) == ({}, 33)
    (record,) = caplog.records
    assert record.getMessage().count("bad") == 20
    assert "and 13 more" in record.getMessage()
    assert (tmp_path / "result" / "submission.csv").read_text() == "id,predicted\n"


def predict_all(path: Path, images: dict[str, NDArray[Any]], net: nn.Module) -> ImagesDone:
    readers = {name: lambda name=name: images[name] for name in images}  # type: ignore[misc]
    summary = predict(path, readers, net=net)
    for name, image in images.items():
        assert read_labels(path / "masks" / f"{name}.tif").shape == image.shape[:2]
    return summary


@pytest.mark.parametrize("make", [BrightNet, lambda: UNet.build(seed=1)], ids=["bright", "unet"])
def test_tiny_and_black_images_have_no_cells(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    images = {
        "pixel": np.full((1, 1), 200, np.uint8),
        "row": np.arange(9, dtype=np.uint16).reshape(1, 9),
        "black": np.zeros((60, 70), np.uint8),
        "colour": np.zeros((60, 70, 3), np.float32),
    }
    summary = predict_all(tmp_path / "result", images, make())
    assert summary == ImagesDone(dict.fromkeys(images, 0), {})
    assert (tmp_path / "result" / "cells.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("value", [7, 255, 65535])
def test_images_of_one_value_have_no_cells(tmp_path: Path, value: int) -> None:
    images = {"flat": np.full((60, 70), value, np.uint16)}
    summary = predict_all(tmp_path / "result", images, BrightNet())
    assert summary == ImagesDone({"flat": 0}, {})


def test_foreign_flows_are_asked_for_by_id(tmp_path: Path) -> None:
    asked = []

    def flows(name: str, reference: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        asked.append(name)
        shape = PICTURES[name].shape
        return np.zeros((2, *shape), np.float32), np.zeros(shape, np.float32)

    member = segmenter_of(BrightNet()).members[0]
    segmenter = Segmenter([member], MaskConfig(flow_threshold=0.0), foreign=(flows,))
    with ResultFolder.open(tmp_path / "result", IDENTITY, exports=ALL) as folder:
        predict_images(segmenter, readers_of(), folder, title="predict")
    assert asked == list(NAMES)


@pytest.mark.parametrize(
    ("identity", "exports", "line"),
    [
        (IDENTITY | {"members": ["aaaa"]}, ALL, r"members: \['aaaa', 'bbbb'\] -> \['aaaa'\]"),
        (IDENTITY | {"mask": {"flow_threshold": 0.4}}, ALL, r"mask\.flow_threshold: 0\.0 -> 0\.4"),
    ],
)
def test_another_identity_is_refused_with_the_difference(
    tmp_path: Path, identity: dict[str, Any], exports: set[str], line: str
) -> None:
    path = tmp_path / "result"
    predict(path)
    before = tree(path)
    with (
        pytest.raises(DataError, match=rf"(?s){line}.*--overwrite.*--name"),
        ResultFolder.open(path, identity, exports=exports),
    ):
        pass
    assert tree(path) == before
    with ResultFolder.open(path, identity, exports=exports, overwrite=True) as folder:
        assert folder.done() == set()
    assert list(tree(path)) == ["prediction.json"]


def test_an_identity_of_tuples_is_that_of_lists(tmp_path: Path) -> None:
    path = tmp_path / "result"
    for members in (("a", "b"), ["a", "b"]):
        with ResultFolder.open(path, {"members": members}):
            pass


def test_overwriting_keeps_what_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "result"
    predict(path)
    (path / "notes.txt").write_text("mine")
    for name in ("png", "seg"):  # folders that no prediction here has written
        (path / name).mkdir()
        (path / name / "mine.png").write_text("mine")
    predict(path, readers_of(NAMES[:1]), overwrite=True)
    assert [(path / name / "mine.png").read_text() for name in ("png", "seg")] == ["mine", "mine"]
    assert set(read_submission(path / "submission.csv")) == {"a"}
    assert [item.name for item in (path / "masks").iterdir()] == ["a.tif"]
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "files",
    [
        ["notes.txt"],
        ["images/a.png", "masks/a.tif"],
        ["masks/a.tif"],
        ["masks/a.tif", "submission.csv", "notes.txt"],
        ["prediction.json"],
        ["prediction.json", "masks/a.tif"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(
    tmp_path: Path, files: list[str], overwrite: bool
) -> None:
    path = tmp_path / "result"
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text('{"masks": 1}')
    before = tree(path)
    with pytest.raises(DataError, match="not overwritten"):
        predict(path, overwrite=overwrite)
    assert tree(path) == before
    assert not (path / ".lock").exists()


def test_a_kill_before_there_was_a_record_leaves_nothing_foreign(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.mkdir()
    (path / ".98788c80.tmp.json").touch()
    predict(path)
    assert [item.name for item in path.glob(".*")] == [".lock"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("x")
    with pytest.raises(DataError, match="found a file"):
        predict(tmp_path / "result", overwrite=True)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "result"
    predict(path)
    before = tree(path)
    with ResultFolder.open(path, IDENTITY, exports=ALL):
        for overwrite in (False, True):
            with pytest.raises(RunError, match=rf"being written by process {os.getpid()} on"):
                predict(path, overwrite=overwrite)
        assert tree(path) == before
    predict(path)


def main() -> None:
    """What `test_killed_and_continued` starts: predicts until an image kills the process."""

    def kill() -> NDArray[Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    predict(Path(sys.argv[1]), readers_of() | {sys.argv[2]: kill})


if __name__ == "__main__":
    main()

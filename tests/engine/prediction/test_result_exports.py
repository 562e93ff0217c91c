"""Another set of exports than last time adds what is missing, and loses nothing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from cellflow.config import MaskConfig
from cellflow.engine.prediction.image_pass import ImagesDone
from cellflow.engine.prediction.predict_images import predict_images
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError
from cellflow.io.image_source import ImageReaders
from cellflow.nn.networks import Network
from cellflow.nn.runners import TorchRunner
from cellflow.synthetic import synthetic_dataset

NAMES = ("a", "b", "empty")
IMAGES: dict[str, NDArray[Any]] = {
    name: np.asarray(item.image)
    for name, item in zip(
        NAMES, synthetic_dataset(3, shape=(64, 66), seed=3, per_group=1), strict=True
    )
} | {"empty": np.zeros((40, 50), np.uint8)}
EXPORTS = ("masks", "submission", "cells", "outlines")
SETS = [
    frozenset(itertools.compress(EXPORTS, chosen))
    for chosen in itertools.product((False, True), repeat=len(EXPORTS))
    if any(chosen)
]
PASS = st.tuples(st.sampled_from(SETS), st.sets(st.sampled_from(NAMES), min_size=1), st.booleans())


def joined(exports: Set[str]) -> str:
    return "+".join(sorted(exports))


class BrightNet(Network):
    """Bright pixels are cells, and flow uphill."""

    style_size = 256

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        smooth = nn.functional.avg_pool2d(batch[:, :1], 9, stride=1, padding=4)
        flow = torch.stack(torch.gradient(smooth[:, 0], dim=(1, 2)), 1)
        flow = 5 * flow / flow.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.cat([flow, smooth - 0.4], 1), torch.ones(len(batch), 256)


def readers_of(names: tuple[str, ...] = NAMES) -> ImageReaders:
    return {name: lambda name=name: IMAGES[name] for name in names}  # type: ignore[misc]


def predict(
    path: Path, exports: Set[str], readers: ImageReaders | None = None, **opening: Any
) -> tuple[ImagesDone, int]:
    """One command; its summary, and how many images the network saw."""
    net = BrightNet()
    member = Member("bright", TorchRunner(net.eval()), 0, 0, 17.0, 17.0)
    segmenter = Segmenter([member], MaskConfig(flow_threshold=0.0))
    with ResultFolder.open(path, {"members": ["x"]}, exports=exports, **opening) as folder:
        summary = predict_images(segmenter, readers or readers_of(), folder, title="predict")
    return summary, net.calls


def tree(path: Path) -> dict[str, bytes]:
    files = (item for item in path.rglob("*") if item.is_file() and item.name != ".lock")
    return {str(item.relative_to(path)): item.read_bytes() for item in files}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Files of a folder that only ever had one set of exports."""
    known: dict[frozenset[str], dict[str, bytes]] = {}

    def files(wanted: Set[str]) -> dict[str, bytes]:
        exports = frozenset(wanted)
        if exports not in known:
            path = tmp_path_factory.mktemp("fresh") / "result"
            predict(path, exports)
            known[exports] = tree(path)
        return known[exports]

    return files


@pytest.mark.parametrize("second", SETS, ids=joined)
@pytest.mark.parametrize("first", SETS, ids=joined)
def test_any_set_after_any_other(
    tmp_path: Path, fresh: Any, first: Set[str], second: Set[str]
) -> None:
    path = tmp_path / "result"
    predict(path, first)
    before = tree(path)
    summary, calls = predict(path, second)
    assert list(summary.cells) == list(NAMES)
    after = tree(path)
    assert after == fresh(first | second)
    assert before.keys() <= after.keys()
    added_cells = "cells" in second - first
    labels_known = first & {"masks", "submission"} or first >= second
    assert calls == (len(NAMES) if added_cells or not labels_known else 0)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(passes=st.lists(PASS, max_size=3), last=st.sampled_from(SETS))
def test_any_passes_before(
    tmp_path_factory: pytest.TempPathFactory, fresh: Any, passes: Any, last: Set[str]
) -> None:
    """Other exports, fewer images, and passes that a full disk stopped."""
    path = tmp_path_factory.mktemp("passes") / "result"

    def full() -> NDArray[Any]:
        raise OSError(28, "No space left on device")

    asked = frozenset(last)
    for exports, names, stops in passes:
        asked |= exports
        readers = dict(readers_of(tuple(name for name in NAMES if name in names)))
        if stops:
            readers["zz"] = full
        try:
            predict(path, exports, readers)
        except OSError:
            assert stops
    predict(path, last)
    assert tree(path) == fresh(asked)


def test_what_an_earlier_command_asked_for_is_kept_up_to_date(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "result"
    predict(path, {"masks", "submission", "cells", "outlines"}, readers_of(NAMES[:1]))
    with caplog.at_level(logging.INFO, "cellflow"):
        predict(path, {"masks"})
    assert sorted(item.name for item in (path / "outlines").iterdir()) == [
        "a.png",
        "b.png",
        "empty.png",
    ]
    assert any("outlines, cells, submission" in record.getMessage() for record in caplog.records)
    predict(path, {"masks"}, overwrite=True)
    assert sorted(item.name for item in path.iterdir() if item.name[0] != ".") == [
        "masks",
        "prediction.json",
    ]


def test_outlines_of_an_image_that_has_changed_are_not_made_of_old_labels(
    tmp_path: Path, fresh: Any
) -> None:
    path = tmp_path / "result"
    marks = dict.fromkeys(NAMES, "1")
    predict(path, {"masks", "submission", "cells"}, fingerprints=marks)
    _, calls = predict(
        path, {"masks", "submission", "cells", "outlines"}, fingerprints=marks | {"b": "2"}
    )
    assert calls == 1
    images = {name for name in tree(path) if name != "prediction.json"}
    assert images == fresh({"masks", "submission", "cells", "outlines"}).keys() - {
        "prediction.json"
    }


def test_damaged_label_maps_and_images_are_no_hindrance(tmp_path: Path, fresh: Any) -> None:
    path = tmp_path / "result"
    predict(path, {"masks", "submission", "cells"})
    (path / "masks" / "a.tif").write_bytes(b"damaged")

    def damaged() -> NDArray[Any]:
        raise DataError("b: damaged")

    summary, calls = predict(
        path, {"masks", "submission", "cells", "outlines"}, dict(readers_of()) | {"b": damaged}
    )
    assert (list(summary.failed), calls) == (["b"], 1)
    predict(path, {"masks", "submission", "cells", "outlines"})
    assert tree(path) == fresh({"masks", "submission", "cells", "outlines"})

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellflow.io.formats.text_outlines import write_text_outlines
from cellflow.io.shapes import closed, instances_from_outlines
from cellflow.numeric.labels import labels_from_instances


def read_back(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Every line as a polygon, as Cellpose's macro for ImageJ takes it."""
    lines = path.read_text().splitlines()
    corners = [np.array(line.split(","), dtype=int).reshape(-1, 2) for line in lines]
    outlines = [[[closed(points)]] for points in corners]
    return labels_from_instances(instances_from_outlines(outlines, shape))


def test_cells_in_one_piece_come_back(tmp_path: Path) -> None:
    labels = np.zeros((12, 16), np.int32)
    labels[2:7, 3:8] = 1
    labels[2, 3] = labels[4:6, 7] = 0
    labels[8:11, 10:15] = 2
    labels[0, 15] = 3
    write_text_outlines(tmp_path / "x_cp_outlines.txt", labels)
    assert np.array_equal(read_back(tmp_path / "x_cp_outlines.txt", labels.shape), labels)
    last = (tmp_path / "x_cp_outlines.txt").read_text().splitlines()[2]
    assert last == "15,0,15,1,16,1,16,0"


def test_holes_are_filled_and_the_largest_part_stays(tmp_path: Path) -> None:
    labels = np.zeros((12, 16), np.int32)
    labels[2:7, 3:8] = 1
    labels[4, 5] = 0
    labels[9:11, 10:15] = 2
    labels[0, 12:14] = 2
    write_text_outlines(tmp_path / "x.txt", labels)
    back = read_back(tmp_path / "x.txt", labels.shape)
    assert (back == 1).sum() == 25
    assert (back == 2).sum() == 10 and not back[0].any()


def test_no_cells(tmp_path: Path) -> None:
    write_text_outlines(tmp_path / "x.txt", np.zeros((3, 3), int))
    assert (tmp_path / "x.txt").read_text() == ""

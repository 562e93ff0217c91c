"""Label maps of every kind, from the files that other tools write to a dataset: no cell is lost or made up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellflow import cli
from cellflow.config import PrepareConfig
from cellflow.engine.data.prepare import prepare
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.formats.label_maps import same_cells

SHAPE = (80, 112)
Labels = NDArray[np.int64]


def discs(n: int = 8, step: int = 1) -> Labels:
    """Numbered discs, with `step` between their numbers."""
    rows, columns = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.int64)
    for index in range(n):
        y, x = 20 + 40 * (index // 4), 14 + 28 * (index % 4)
        labels[np.hypot(rows - y, columns - x) < 9] = 1 + index * step
    return labels


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).normal(90, 20, SHAPE)
    Image.fromarray(np.clip(noise + 60 * (discs() > 0), 0, 255).astype(np.uint8)).save(path)


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    assert left.value.code == 0


def prepared(source: Path, *flags: object) -> Dataset:
    """The dataset that the command line makes of a folder."""
    out = source.parent / "data"
    command("prepare", source, "--out", out, "--overwrite", *flags)
    return Dataset.open(out)


def fails(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        prepare(PrepareConfig(source=source, out=source.parent / "data", **options))
    return str(caught.value)


# ------------------------------------------------------------------------------- kinds of label maps

COLOURS = np.array(
    [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255),
     (128, 128, 128), (255, 128, 0)], np.uint8,
)  # fmt: skip


def tiff(dtype: str, **options: Any) -> Callable[[Path, Labels], None]:
    return lambda path, labels: tifffile.imwrite(path, labels.astype(dtype), **options)


def pillow(mode: str) -> Callable[[Path, Labels], None]:
    def save(path: Path, labels: Labels) -> None:
        small = labels.astype(np.uint16 if mode == "I;16" else np.uint8)
        picture = Image.fromarray(small)
        if mode == "P":
            picture = Image.fromarray(small).convert("L")
            picture.putpalette(np.resize(COLOURS, (256, 3)).tobytes())
        picture.save(path)

    return save


def one_bit(path: Path, labels: Labels) -> None:
    Image.fromarray(labels > 0).save(path)


KINDS: dict[str, tuple[str, Callable[[Path, Labels], None], Labels]] = {
    "8 bit": ("x.tif", tiff("uint8"), discs()),
    "16 bit": ("x.tif", tiff("uint16"), discs(step=1000)),
    "32 bit": ("x.tif", tiff("uint32"), discs(step=1000)),
    "signed": ("x.tif", tiff("int32"), discs()),
    "64 bit": ("x.tif", tiff("int64"), discs()),
    "big-endian": ("x.tif", tiff("uint16", byteorder=">"), discs(step=300)),
    "float": ("x.tif", tiff("float32"), discs(step=3)),
    "double": ("x.tif", tiff("float64"), discs(step=3)),
    "half": ("x.tif", tiff("float16"), discs(step=3)),
    "tiled": ("x.tif", tiff("uint16", tile=(32, 32)), discs()),
    "strips": ("x.tif", tiff("uint16", rowsperstrip=7), discs()),
    "deflate": ("x.tif", tiff("uint16", compression="zlib"), discs()),
    "deflate and predictor": ("x.tif", tiff("uint16", compression="zlib", predictor=True), discs()),
    "LZW": ("x.tif", tiff("uint16", compression="lzw"), discs()),
    "zstd": ("x.tif", tiff("uint16", compression="zstd"), discs()),
    "packbits": ("x.tif", tiff("uint8", compression="packbits"), discs()),
    "lzma": ("x.tif", tiff("uint16", compression="lzma"), discs()),
    "zstd of floats": ("x.tif", tiff("float32", compression="zstd", predictor=True), discs()),
    "BigTIFF": ("x.tif", tiff("uint32", bigtiff=True), discs()),
    "BigTIFF, tiled and deflated": (
        "x.TIFF", tiff("uint32", bigtiff=True, tile=(16, 16), compression="zlib"), discs(),
    ),
    "ImageJ": ("x.tif", tiff("uint16", imagej=True), discs()),
    "OME": ("x.ome.tif", tiff("uint16", ome=True), discs()),
    "numbers over 65,535": ("x.tif", tiff("uint32"), discs(step=70_001)),
    "numbers over 16,777,216": ("x.tif", tiff("uint32"), discs(step=2**28)),
    "one plane of a stack": ("x.tif", lambda path, labels: tifffile.imwrite(path, labels[None].astype("u2")), discs()),
    "8-bit PNG": ("x.png", pillow("L"), discs()),
    "16-bit PNG": ("x.PNG", pillow("I;16"), discs(step=1000)),
    "palette PNG": ("x.png", pillow("P"), discs()),
    "palette TIFF": ("x.tif", pillow("P"), discs()),
    "palette BMP": ("x.bmp", pillow("P"), discs()),
    "1-bit PNG": ("x.png", one_bit, np.minimum(discs(), 1)),
    "1-bit TIFF": ("x.TIF", one_bit, np.minimum(discs(), 1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_label_maps(kind: str, tmp_path: Path) -> None:
    name, save, labels = KINDS[kind]
    stem = "x.ome" if kind == "OME" else "x"
    write_image(tmp_path / "s" / "images" / f"{stem}.png")
    (tmp_path / "s" / "masks").mkdir()
    save(tmp_path / "s" / "masks" / name, labels)
    dataset = prepared(tmp_path / "s")
    assert same_cells(dataset.labels(stem).astype(np.int64), labels)
    assert dataset.images["n_instances"].tolist() == [labels.max() and len(np.unique(labels)) - 1]


def test_more_cells_than_16_bits_hold(tmp_path: Path) -> None:
    labels = np.repeat(np.repeat(np.arange(70_000).reshape(250, 280), 2, 0), 2, 1)
    for folder, pixels in (("images", np.zeros(labels.shape, np.uint8)), ("masks", labels)):
        (tmp_path / "s" / folder).mkdir(parents=True)
        tifffile.imwrite(
            tmp_path / "s" / folder / "x.tif", pixels.astype(np.uint32), compression="zlib"
        )
    dataset = prepared(tmp_path / "s")
    assert dataset.images["n_instances"].tolist() == [69_999]
    assert np.array_equal(dataset.labels("x"), labels)


# ------------------------------------------------------------------------------------------- colours


def coloured(path: Path, labels: Labels, colours: NDArray[Any] = COLOURS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png" and colours.dtype == np.uint8:
        Image.fromarray(colours[labels]).save(path)
    else:
        tifffile.imwrite(path, colours[labels], photometric="rgb")


WHITE = COLOURS.copy()
WHITE[0] = 255
ALPHA = np.concatenate([COLOURS, np.full((9, 1), 255, np.uint8)], axis=1)


@pytest.mark.parametrize("colours", [COLOURS, WHITE, ALPHA, COLOURS.astype(np.uint16) * 257])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_colour_for_each_cell(ending: str, colours: NDArray[Any], tmp_path: Path) -> None:
    write_image(tmp_path / "s" / "x.png")
    coloured(tmp_path / "s" / f"x_masks.{ending}", discs(), colours)
    assert "add --colours" in fails(tmp_path / "s")
    dataset = prepared(tmp_path / "s", "--colours")
    assert same_cells(dataset.labels("x").astype(np.int64), discs())


def test_black_is_the_background_where_a_cell_covers_most_of_the_border(tmp_path: Path) -> None:
    labels = np.ones(SHAPE, np.int64)
    labels[:50, :30] = 0
    labels[60:70, 60:70] = 2
    labels[50:60, :40] = 3
    labels[:, 90:] = 4
    write_image(tmp_path / "s" / "x.png")
    coloured(tmp_path / "s" / "x_masks.png", labels)
    assert same_cells(prepared(tmp_path / "s", "--colours").labels("x").astype(np.int64), labels)


def test_black_is_the_background_where_cells_cover_the_whole_border(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.int64)
    labels[:20], labels[60:] = 1, 2
    labels[20:60, :20], labels[20:60, 90:] = 3, 4
    labels[30:40, 40:50] = 5
    write_image(tmp_path / "s" / "x.png")
    coloured(tmp_path / "s" / "x_masks.png", labels)
    assert same_cells(prepared(tmp_path / "s", "--colours").labels("x").astype(np.int64), labels)
    coloured(tmp_path / "s" / "x_masks.png", labels, COLOURS[::-1])
    assert "x_masks.png: expected the colour of the background" in fails(
        tmp_path / "s", colours=True, overwrite=True
    )


def test_a_background_of_another_colour_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "xyz":
        write_image(tmp_path / "s" / f"{name}.png")
        colours = COLOURS if name == "z" else WHITE
        coloured(tmp_path / "s" / f"{name}_masks.png", discs(), colours)
    with caplog.at_level(logging.INFO):
        prepared(tmp_path / "s", "--colours")
    told = [line for line in caplog.messages if "is taken for" in line]
    assert told == [f"{tmp_path / 's'}: 255, 255, 255 is taken for the background (x_masks.png)"]


def test_one_colour_for_several_cells_is_told_and_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = discs()
    write_image(tmp_path / "s" / "x.png")
    coloured(tmp_path / "s" / "x_masks.png", np.where(labels, labels % 2 + 1, 0))
    assert prepared(tmp_path / "s", "--colours").images["n_instances"].tolist() == [2]
    assert "x (2 labels in 8 parts)" in caplog.text
    dataset = prepared(tmp_path / "s", "--colours", "--split")
    assert same_cells(dataset.labels("x").astype(np.int64), labels)


def smoothed(path: Path) -> None:
    large = Image.fromarray(COLOURS[discs()]).resize((SHAPE[1] * 4, SHAPE[0] * 4), Image.NEAREST)  # type: ignore[attr-defined]
    large.resize((SHAPE[1], SHAPE[0]), Image.LANCZOS).save(path)  # type: ignore[attr-defined]


def drawn_smoothly(path: Path) -> None:
    picture = Image.new("RGB", (SHAPE[1] * 3, SHAPE[0] * 3))
    draw = ImageDraw.Draw(picture)
    for index, (x, y) in enumerate((x, y) for y in (60, 170) for x in (60, 150, 240)):
        draw.ellipse((x - 35, y - 30, x + 35, y + 40), fill=tuple(COLOURS[index + 1]))
    picture.resize((SHAPE[1], SHAPE[0]), Image.BILINEAR).save(path)  # type: ignore[attr-defined]


def photograph(path: Path) -> None:
    noise = np.random.default_rng(0).normal(120, 30, (*SHAPE, 3))
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)


@pytest.mark.parametrize("save", [smoothed, drawn_smoothly, photograph])
def test_smoothed_edges_and_photographs_are_no_colours(
    save: Callable[[Path], None], tmp_path: Path
) -> None:
    write_image(tmp_path / "s" / "x.png")
    save(tmp_path / "s" / "x_masks.png")
    message = fails(tmp_path / "s", colours=True)
    assert "x_masks.png: expected a " in message
    assert "smoothed" in message or "smoothing" in message


def test_colours_as_truth_and_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coloured(tmp_path / "found" / "x.png", discs())
    coloured(tmp_path / "true" / "x.png", discs(), WHITE)
    command("score", tmp_path / "found", "--truth", tmp_path / "true", "--colours")
    assert "1.0000" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["score", str(tmp_path / "found"), "--truth", str(tmp_path / "true")])
    assert "--colours" in capsys.readouterr().err


# --------------------------------------------------------------------------------- Cellpose's GUI


def gui_file(path: Path, labels: Labels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    masks = labels.astype(np.uint16)
    values = {"outlines": masks, "masks": masks, "filename": "x.tif", "flows": [], "ismanual": []}
    np.save(path, values)  # type: ignore[arg-type]


def test_a_folder_of_the_gui(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a.TIF", "b.png", "c_img.png"):
        write_image(tmp_path / "s" / name)
        gui_file(tmp_path / "s" / f"{Path(name).stem}_seg.npy", discs(5))
    dataset = prepared(tmp_path / "s")
    assert dataset.ids == ["a", "b", "c_img"]
    assert all(same_cells(dataset.labels(name).astype(np.int64), discs(5)) for name in dataset.ids)
    assert "The cells of 3 images are those of Cellpose's GUI" in caplog.text


@pytest.mark.parametrize("flag", ["_seg", "_seg.npy"])
def test_the_gui_files_by_name(flag: str, tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "s" / f"{name}.png")
        gui_file(tmp_path / "s" / f"{name}_seg.npy", discs(5))
        Image.fromarray(discs(3).astype(np.uint8)).save(tmp_path / "s" / f"{name}_masks.png")
    dataset = prepared(tmp_path / "s", "--mask_filter", flag)
    assert dataset.images["n_instances"].tolist() == [5, 5]


def test_label_maps_go_before_gui_files_and_differences_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, n in (("a", 5), ("b", 8)):
        write_image(tmp_path / "s" / f"{name}.png")
        Image.fromarray(discs(5).astype(np.uint8)).save(tmp_path / "s" / f"{name}_cp_masks.png")
        gui_file(tmp_path / "s" / f"{name}_seg.npy", discs(n, step=2))
    dataset = prepared(tmp_path / "s")
    assert dataset.images["n_instances"].tolist() == [5, 5]
    assert "2 images have a label map and a file of Cellpose's GUI" in caplog.text
    assert "the cells of 1 differ (b). --mask_filter _seg takes the others" in caplog.text
    gui_file(tmp_path / "s" / "b_seg.npy", discs(5))
    caplog.clear()
    prepared(tmp_path / "s")
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warned if "GUI" in record.getMessage()]


def test_images_with_label_maps_and_images_with_gui_files(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / "s" / f"{name}_img.png")
    Image.fromarray(discs(3).astype(np.uint8)).save(tmp_path / "s" / "a_masks.png")
    gui_file(tmp_path / "s" / "b_img_seg.npy", discs(4))
    gui_file(tmp_path / "s" / "c_seg.npy", discs(5))
    dataset = prepared(tmp_path / "s", "--img_filter", "_img")
    assert dataset.images["n_instances"].to_dict() == {"a": 3, "b": 4, "c": 5}


def test_gui_files_beside_images_in_a_folder_of_their_own(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "s" / "images" / f"{name}.png")
    (tmp_path / "s" / "masks").mkdir()
    Image.fromarray(discs(3).astype(np.uint8)).save(tmp_path / "s" / "masks" / "a.png")
    gui_file(tmp_path / "s" / "images" / "b_seg.npy", discs(4))
    assert prepared(tmp_path / "s").images["n_instances"].tolist() == [3, 4]


def test_gui_files_that_do_not_fit(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "s" / f"{name}.png")
    gui_file(tmp_path / "s" / "a_seg.npy", discs()[:-1])
    (tmp_path / "s" / "b_seg.npy").write_bytes(b"\x93NUMPY nothing")
    gui_file(tmp_path / "s" / "c_seg.npy", discs())
    message = fails(tmp_path / "s")
    assert "c_seg.npy: a mask without an image" in message
    (tmp_path / "s" / "c_seg.npy").unlink()
    message = fails(tmp_path / "s")
    assert "a_seg.npy: the mask is 79 x 112" in message
    assert "b_seg.npy: not a file of Cellpose's GUI, or a damaged one" in message


def test_gui_files_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write_image(tmp_path / "found" / f"{name}.png")
        gui_file(tmp_path / "found" / f"{name}_seg.npy", discs())
        write_image(tmp_path / "true" / f"{name}.png")
    gui_file(tmp_path / "true" / "b_seg.npy", discs())
    Image.fromarray(discs().astype(np.uint8)).save(tmp_path / "true" / "a_masks.png")
    command("score", tmp_path / "found", "--truth", tmp_path / "true")
    out = capsys.readouterr().out
    assert "2 images that match by name" in out
    assert "1.0000" in out

"""Several slides in one command of which some go wrong, full disks, and slides of scanners that others name."""

from __future__ import annotations

import errno
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_files import Slide, files_of, labels_of

from cellflow.cli import main
from cellflow.config import SlidesConfig
from cellflow.engine.prediction.ensemble import EnsembleResult, ensemble
from cellflow.engine.slides import predict_slide
from cellflow.io.images import read_image


def segment(slide: Slide, *images: Path, **slides: object) -> EnsembleResult:
    output = replace(slide.config.output, name="b")
    how = SlidesConfig(**{"block": 256, **slides})
    return ensemble(replace(slide.config, images=images, output=output, slides=how))


@pytest.mark.slow
def test_a_slide_that_fails_in_any_step_does_not_stop_the_others(
    slide, undisturbed, tmp_path, monkeypatch, caplog
):
    mosaic, small, cut = (tmp_path / f"{name}.tif" for name in ("mosaic", "small", "cut"))
    shutil.copy(slide.path, mosaic)
    tifffile.imwrite(small, read_image(mosaic)[:90, :100], tile=(128, 128))
    cut.write_bytes(mosaic.read_bytes()[:9000])
    scanned = tmp_path / "scanned.svs"
    scanned.write_text("what opens it is not installed")
    monkeypatch.setitem(sys.modules, "openslide", None)
    find_ends = predict_slide.find_ends

    def fail(job, name):
        if job.image.id == "mosaic" and name != "0_0":
            raise ArithmeticError("the numbers are on fire")
        find_ends(job, name)

    monkeypatch.setattr(predict_slide, "find_ends", fail)
    with caplog.at_level("INFO", logger="cellflow"):
        result = segment(slide, mosaic, cut, scanned, small)
    assert list(result.failed) == ["mosaic", "cut", "scanned"]
    assert list(result.cells) == list(result.slides) == ["small"]
    text = result.failed["mosaic"]
    assert "ends of 3 blocks failed" in text
    assert "block 0_1 (rows 0 to 256, columns 256 to 420): ArithmeticError: the numbers are" in text
    assert "cellflow[slides]" in result.failed["scanned"]
    assert "small: " in caplog.text and " in 0." in caplog.text
    monkeypatch.setattr(predict_slide, "find_ends", find_ends)
    monkeypatch.setattr(predict_slide, "make_flows", None)  # they are there
    again = segment(slide, mosaic, small)
    assert not again.failed
    assert files_of(again.slides["mosaic"].folder) == files_of(undisturbed)


def test_a_full_disk_is_no_fault_of_a_block(slide, monkeypatch):
    tried = []

    def fail(job, name):
        tried.append(name)
        raise OSError(errno.EDQUOT, "no room", "there")

    monkeypatch.setattr(predict_slide, "make_flows", fail)
    with pytest.raises(OSError, match="there") as told:
        slide.segment("b", block=256)
    assert (told.value.errno, tried) == (errno.ENOSPC, ["0_0"])


@pytest.mark.slow
def test_what_is_left_of_other_settings_is_never_gone_on_with(slide, undisturbed, monkeypatch):
    """A command with other settings that is killed while it clears away what the first one has left."""
    remove = shutil.rmtree

    def stop(job, name):
        raise KeyboardInterrupt

    def kill(path, **how):
        if path.name == ".blocks":
            remove(path / "flow.zarr")
            raise KeyboardInterrupt
        remove(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(predict_slide, "find_ends", stop)
        with pytest.raises(KeyboardInterrupt):
            slide.segment("b", block=256)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            slide.segment("b", block=300)
    assert files_of(slide.segment("b", block=256).slides["mosaic"].folder) == files_of(undisturbed)


def test_a_folder_with_the_file_of_a_scanner(slide, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openslide")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    pixels = np.stack([read_image(slide.path)[:150, :160]] * 3, axis=-1)
    tifffile.imwrite(
        tmp_path / "folder" / "1 a.b.SVS", pixels, tile=(128, 128), photometric="rgb", metadata=None,
        description="Aperio Image Library v11\r\n160x150 (128x128) RGB|MPP = 0.5",
    )  # fmt: skip
    tifffile.imwrite(tmp_path / "folder" / "small.tif", pixels[:, :, 0])
    arguments = [
        "predict", "folder", "--model", str(slide.config.runs[0]), "--device", "cpu", "--amp", "off",
        "--diameter", "9um", "--cellprob_threshold", "-1", "--flow_threshold", "2",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    assert "the pixel size of small is not known" in capsys.readouterr().err
    (tmp_path / "folder" / "small.tif").write_bytes(b"II*")  # damaged: no fault of the others
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert end.value.code == 1
    assert "1 of 2 images could not be used" in said.err
    (labels,) = Path("predictions").glob("*/slides/1 a.b/labels.zarr")
    assert f"napari --layer-type labels '{labels}'" in said.out
    assert labels_of(labels.parent).shape == (150, 160)

"""Diameters far from the training, and images without cells, are said with their numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from cellflow.config import InferenceConfig, MaskConfig, OutputConfig, PredictConfig, RuntimeConfig
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.prediction.prediction_plan import plan_prediction
from cellflow.engine.segmentation.doubts import (
    ImageFacts,
    warn_of_diameter,
    warn_of_diameters,
    warn_of_no_cells,
)
from cellflow.engine.segmentation.member import Member
from cellflow.io.images import read_image
from cellflow.nn.networks import UNet
from cellflow.nn.runners import TorchRunner

MEMBER = Member("net", TorchRunner(UNet.build(diam_mean=30.0)), 0, 0, 30.0, 54.0)


def said(caplog: pytest.LogCaptureFixture) -> str:
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    return "\n".join(record.getMessage() for record in warnings)


def facts(name: str, **more) -> ImageFacts:
    usual = {
        "cells": 0, "cell_type": "", "diameter": 54.0, "style_diameter": 0.0, "logit": -3.25,
        "values": (0.0, 20.0, 200.0),
    }  # fmt: skip
    return ImageFacts(name, **(usual | more))


def test_a_diameter_that_is_far_from_the_training(caplog: pytest.LogCaptureFixture) -> None:
    for near in (None, 54.0, 19.0, 150.0):
        warn_of_diameter(near, [MEMBER])
    assert not caplog.records
    warn_of_diameter(5.0, [MEMBER])
    for words in ("5 pixels", "54", "scaled by 6", "10.8 times longer", "117 times the pixels"):
        assert words in said(caplog)
    caplog.clear()
    warn_of_diameter(400.0, [MEMBER])
    assert "7.41 times shorter" in said(caplog)


def test_diameters_that_were_estimated(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_diameters([facts("a", diameter=30.0, style_diameter=60.0), facts("b")], [MEMBER])
    assert not caplog.records
    warn_of_diameters([facts("a", diameter=9.0), facts("b")], [MEMBER])
    assert "in 1 image" in said(caplog)
    assert "a 9" in said(caplog) and "54" in said(caplog)
    caplog.clear()
    warn_of_diameters([facts("a", style_diameter=12.0), facts("b", style_diameter=14.0)], [MEMBER])
    assert "2 images" in said(caplog)
    assert "--diameter 13" in said(caplog)
    caplog.clear()
    caplog.set_level("INFO")
    warn_of_diameters([facts("a")._replace(found=40.0), facts("b")], [MEMBER])
    assert not caplog.records
    warn_of_diameters([facts("a")._replace(found=30.0), facts("b")], [MEMBER])
    assert "in 1 image" in caplog.text and "a 30" in caplog.text
    assert "--diameter_rounds 3" in caplog.text


def test_causes_of_no_cells(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_no_cells([facts("a", cells=2)], MaskConfig(), {}, [MEMBER])
    assert not caplog.records
    warn_of_no_cells(
        [
            facts("cells", cells=2),
            facts("flat", values=(7.0, 7.0, 7.0)),
            facts("low"),
            facts("lost", logit=2.5, cell_type="cort", values=(0.0, 180.0, 200.0)),
        ],
        MaskConfig(cellprob_threshold=1.5),
        {"cort": MaskConfig(min_size=999)},
        [MEMBER],
    )
    (record,) = caplog.records
    lines = record.getMessage().splitlines()
    assert lines[0] == "no cell was found in 3 of 4 images (flat, low, lost):"
    assert "of one value only (flat: 7)" in lines[1]
    assert "--cellprob_threshold 1.5; the highest is -3.25 (low)" in lines[2]
    assert "2.50 (lost)" in lines[3] and "--min_size 999" in lines[3]
    assert "54 pixels (training: 54)" in lines[4]
    assert "from 0 to 200" in lines[4] and "a dark image" in lines[4]


def test_no_negative_zero_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A logit just below 0, and pixels of -0.0 as subtracting a background leaves them."""
    flat, low = (
        facts("flat", values=(-0.0, -0.0, -0.0)),
        facts("low", logit=-0.004, values=(-0.0, 1.0, 2.0)),
    )
    warn_of_no_cells([flat, low], MaskConfig(cellprob_threshold=-0.0), {}, [MEMBER])
    warn_of_no_cells(
        [facts("lost", logit=-0.004)], MaskConfig(cellprob_threshold=-1.0), {}, [MEMBER]
    )
    assert "the highest is 0.00" in said(caplog) and "cellprob up to 0.00" in said(caplog)
    assert "-0" not in said(caplog)


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> PredictConfig:
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:96, :112]
    imsave(tmp_path / "a.png", image, check_contrast=False)
    imsave(tmp_path / "flat.png", np.full((64, 64), 9, np.uint8), check_contrast=False)
    return PredictConfig(
        images=(tmp_path,),
        model=str(shared / "models" / "usiigaci_unet"),
        output=OutputConfig(out=tmp_path / "out", name="one"),
        inference=InferenceConfig(diameter=500.0),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )


def test_a_prediction_says_them(config: PredictConfig, caplog: pytest.LogCaptureFixture) -> None:
    plan_prediction(config)
    assert "a diameter of 500 pixels, but the cells" in said(caplog)
    caplog.clear()
    assert sum(predict(config).cells.values()) == 0
    text = said(caplog)
    assert text.index("a diameter of 500 pixels") < text.index("no cell was found in 2 of 2 images")
    assert "of one value only (flat: 9)" in text
    assert "500 pixels (training:" in text

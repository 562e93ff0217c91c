"""Model files as members: what a network does not take is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from cellflow import load_model
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import load_member
from cellflow.errors import CheckpointError
from cellflow.nn.checkpoint import save_model_file
from cellflow.nn.networks import UNet

CPU = Machine(torch.device("cpu"))


def model_of(channels: int, folder: Path) -> Path:
    path = folder / f"{channels}.pt"
    save_model_file(path, UNet(channels=channels, widths=(8, 16)), {})
    return path


def test_a_second_channel_for_a_network_of_one_is_refused(tmp_path: Path) -> None:
    path = model_of(1, tmp_path)
    assert load_member(path, "one", CPU).net.channels == 1
    with pytest.raises(
        CheckpointError, match=r"takes one channel, found --chan2 2\. Leave"
    ) as caught:
        load_member(path, "one", CPU, channels=(1, 2))
    assert (caught.value.path, caught.value.found) == (path, 2)


def test_channels_that_stay_empty_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(model_of(3, tmp_path), device="cpu")
    assert "takes 3 channels; it gets those of --chan and --chan2" in caplog.text
    assert model.predict(np.zeros((40, 40), np.uint8)).labels.shape == (40, 40)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_network_of_one_channel_segments(tmp_path: Path, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = load_model(model_of(1, tmp_path), device="cpu", engine=engine)
    image = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
    assert model.predict(image).labels.shape == (50, 70)

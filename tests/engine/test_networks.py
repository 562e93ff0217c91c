"""A network of a few lines, added from outside, is saved, loaded, segments and trains like the U-Net."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cellflow import load_model, oof, train
from cellflow.config import ModelConfig, OofConfig, TrainConfig
from cellflow.engine.runs.metadata import read_metadata
from cellflow.engine.training.training_plan import plan_training
from cellflow.errors import CheckpointError, ConfigError
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import NETWORKS, Network, UNet
from cellflow.nn.runners import TorchRunner
from cellflow.storage.run_folder import RunFolder


class Tiny(Network):
    """One convolution of a grey image. It has no style."""

    kind, title = "tiny", "one convolution"
    channels, tile, multiple = 1, 64, 4

    def __init__(self, diam_mean: float = 30.0):
        super().__init__(diam_mean)
        self.layer = nn.Conv2d(1, 3, 5, padding=2)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor]:
        assert tiles.shape[1] == 1 and tiles.shape[2] <= 64 and tiles.shape[2] % 4 == 0
        return (self.layer(tiles),)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(NETWORKS, Tiny.kind, Tiny)
    save_model_file(tmp_path / "tiny.pt", Tiny.build(diam_mean=17.0), {"chan": 0, "chan2": 0})
    return tmp_path / "tiny.pt"


def test_it_is_loaded_by_its_kind_and_segments(tiny: Path) -> None:
    model = load_model(tiny, device="cpu", amp="off")
    assert isinstance(model.opened.members[0].net, Tiny)
    image = np.random.default_rng(0).random((90, 110))
    found = model.predict(image, cellprob_threshold=-1.0)
    assert found.labels.shape == (90, 110)
    assert found.recognition.diameter == 0
    assert model.eval(image)[2].size == 0


def test_it_trains_on_from_its_file(tiny: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    """Style models, which an evaluation at diameters of the images wants, are not fitted."""
    config = replace(
        tiny_config,
        runs_dir=tmp_path / "runs",
        eval_diameter="image",
        model=ModelConfig(pretrained_model=str(tiny)),
        optim=replace(tiny_config.optim, n_epochs=1),
    )
    train(config)
    run = RunFolder(tmp_path / "runs" / config.name)
    before, after = (load_model_file(path).net for path in (tiny, run.fold(0).best))
    assert isinstance(before, Tiny) and isinstance(after, Tiny)
    metadata = read_metadata(run)
    assert metadata is not None and metadata["model"]["network"] == "one convolution"
    oof(OofConfig(config.name, runs_dir=config.runs_dir, runtime=config.runtime))
    assert not run.fold(0).styles.exists()


def test_crops_that_do_not_fit_it_start_no_run(
    tiny: Path, tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "crop_multiple", 48)
    config = replace(
        tiny_config, runs_dir=tmp_path / "runs", model=ModelConfig(pretrained_model=str(tiny))
    )
    for command in (train, plan_training):
        with pytest.raises(
            ConfigError, match=r"--bsize 64: .*one convolution.*48.* 48 or 96"
        ) as error:
            command(config)
        assert (error.value.expected, error.value.found) == (48, 64)
    assert not config.runs_dir.exists()


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_a_unet_takes_crops_that_halve_from_level_to_level(levels: int) -> None:
    net = UNet(widths=[4] * levels).eval()
    assert net(torch.zeros(1, 2, 5 * net.crop_multiple, 32))[0].shape[2] == 5 * net.crop_multiple
    with pytest.raises(RuntimeError, match="must match the size"):
        net(torch.zeros(1, 2, 5 * net.crop_multiple // 2, 32))


def test_what_it_cannot_do_is_said(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="one convolution has no encoder"):
        load_model_file(tiny).net.freeze_encoder()


def test_a_file_of_an_unknown_network_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(NETWORKS, "tiny")
    with pytest.raises(CheckpointError, match="network 'tiny'") as error:
        load_model_file(tiny)
    assert (error.value.path, error.value.expected, error.value.found) == (tiny, "unet", "tiny")


def test_weights_of_another_network_are_refused(tiny: Path) -> None:
    state = torch.load(tiny, weights_only=True)
    state._metadata["cellflow"]["network"] = "unet"
    torch.save(state, tiny)
    with pytest.raises(CheckpointError, match=r"does not fit the network cellpose CPnet\. missing"):
        load_model_file(tiny)


def test_a_network_for_one_channel_takes_the_first_of_two(tiny: Path) -> None:
    from cellflow.nn.forward import image_to_flows

    net = load_model_file(tiny).net
    image = np.random.default_rng(0).random((2, 40, 50), dtype=np.float32)
    both, first = (
        image_to_flows(TorchRunner(net), part, rescale=1.0) for part in (image, image[:1])
    )
    np.testing.assert_array_equal(both.flow, first.flow)
    assert both.style is None


def test_missing_channels_are_empty() -> None:
    from cellflow.nn.forward import image_to_flows

    net = UNet.build(seed=1).eval()
    image = np.random.default_rng(0).random((1, 40, 50), dtype=np.float32)
    padded = np.concatenate([image, np.zeros_like(image)])
    grey, two = (image_to_flows(TorchRunner(net), part, rescale=1.0) for part in (image, padded))
    np.testing.assert_array_equal(grey.cellprob, two.cellprob)

from __future__ import annotations

import pickle
import resource
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import Oracle

from cellflow.errors import CheckpointError
from cellflow.nn.checkpoint import (
    load_model_file,
    load_state,
    save_model_file,
    save_state,
)
from cellflow.nn.networks import UNet

FACTS = {
    "epoch": 3,
    "score": 0.25,
    "chan": 2,
    "chan2": 1,
    "data_hash": "abc",
    "versions": {"a": "1"},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    net = UNet.build(diam_mean=17.0, seed=4).to(memory_format=torch.channels_last)
    net.set_diam_labels(25.0)
    save_model_file(tmp_path / "model.pt", net, FACTS)
    return tmp_path / "model.pt"


def test_round_trip(model: Path) -> None:
    net, facts = load_model_file(model)
    assert facts == FACTS | {"network": "unet"}
    assert net.diameters == (17.0, 25.0)
    assert not net.training
    expected = UNet.build(seed=4).state_dict()
    for name, value in net.state_dict().items():
        if not name.startswith("diam"):
            assert torch.equal(value, expected[name]), name
            assert value.is_contiguous()


def test_cellpose_loads_it(model: Path) -> None:
    net = Oracle("resnet_torch").CPnet([2, 32, 64, 128, 256], 3, 3)
    net.load_model(str(model))
    assert net.diam_labels.item() == 25.0
    ours = load_model_file(model).net
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), ours.parameters(), strict=True))


def test_a_file_that_cellpose_wrote(shared: Path) -> None:
    net, facts = load_model_file(shared / "models" / "usiigaci_unet")
    assert facts == {}
    assert net.diameters == pytest.approx((30.0, 53.9), abs=0.1)


def test_bad_files(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No model file at"):
        load_model_file(tmp_path / "nothing.pt")

    cut = tmp_path / "cut.pt"
    cut.write_bytes(model.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"cut\.pt cannot be read as a model file"):
        load_model_file(cut)

    text = tmp_path / "text.pt"
    text.write_text("not a model")
    with pytest.raises(CheckpointError, match="cannot be read as a model file"):
        load_model_file(text)

    torch.save({"W2": torch.zeros(1)}, tmp_path / "four.pt")
    with pytest.raises(CheckpointError, match="Cellpose 4"):
        load_model_file(tmp_path / "four.pt")

    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"no Cellpose 3 U-Net.*layer\.weight"):
        load_model_file(tmp_path / "other.pt")


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    weights = UNet(widths=(4, 8)).state_dict()
    torch.save({"epoch": 3, "state_dict": dict(weights)}, tmp_path / "wrapped.pt")
    torch.save(
        weights | {"output.2.bias": torch.tensor([1.0, torch.nan, 0.0])}, tmp_path / "nan.pt"
    )
    torch.save({"encoder.patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "sam.pt")
    torch.save(UNet(widths=(4, 8)), tmp_path / "whole.pt")
    np.save(tmp_path / "size.npy", np.zeros(3))
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "foreign.pkl").write_bytes(pickle.dumps({"weights": [1, 2, range(3)]}))
    (tmp_path / "w.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    expected = {
        "wrapped.pt": r"weights are the entry 'state_dict'.*torch\.save",
        "nan.pt": r"the weights output\.2\.bias are not all numbers",
        "sam.pt": "a Cellpose 4 model",
        "whole.pt": "holds more than weights",
        "size.npy": "a NumPy array",
        "page.pt": "a page of the web",
        "empty.pt": "it is empty",
        "foreign.pkl": "a pickle of another program",
        "w.safetensors": "a safetensors file",
    }
    for name, reason in expected.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(CheckpointError, match=reason) as caught:
                load_model_file(tmp_path / name)
        assert caught.value.path == tmp_path / name


def test_a_network_of_several_gpus_is_loaded(tmp_path: Path) -> None:
    weights = UNet(widths=(4, 8)).state_dict()
    torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "gpus.pt")
    assert torch.equal(
        load_model_file(tmp_path / "gpus.pt").net.output[2].bias, weights["output.2.bias"]
    )


def test_no_open_pickle(tmp_path: Path) -> None:
    torch.save({"path": Path("x")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model_file(tmp_path / "evil.pt")


def test_missing_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    state = UNet.build().state_dict()
    del state["upsample.up.res_up_0.proj.1.weight"]
    state["output.2.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(
        CheckpointError, match=r"missing: upsample.*output\.2\.bias: expected \(3,\), found \(7,\)"
    ):
        load_model_file(tmp_path / "odd.pt")


def test_training_state_round_trip(tmp_path: Path) -> None:
    state = {"net": {"w": torch.arange(3.0)}, "history": [{"epoch": 1, "loss": 0.5}], "best": -1.0}
    save_state(tmp_path / "last.pt", state)
    loaded = load_state(tmp_path / "last.pt")
    assert loaded["history"] == state["history"]
    assert torch.equal(loaded["net"]["w"], torch.arange(3.0))


def test_a_full_disk_leaves_the_old_model(model: Path) -> None:
    """The system's own limit on file size stands in for a full disk: the write really fails."""
    before = model.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as error:
            save_model_file(model, UNet.build(seed=5), FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.filename == str(model)
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]

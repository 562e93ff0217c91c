"""The engines give what the network gives, within their rounding; and what is not there is said."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cellflow.errors import ConfigError, NotFiniteError, PackageError
from cellflow.nn import runners
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.forward import image_to_flows, image_to_style
from cellflow.nn.networks import UNet
from cellflow.nn.runners import (
    ENGINE_VARIABLE,
    Runner,
    choose_engine,
    conversions,
    make_runner,
    openvino_runner,
)
from cellflow.nn.runners.conversions import CACHE_VARIABLE

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(
    not runners.choose.importlib.util.find_spec("openvino"), reason="OpenVINO is not installed here"
)


def small_net(**sizes: object) -> UNet:
    torch.manual_seed(5)
    return UNet(widths=(8, 16, 32), **sizes).eval()  # type: ignore[arg-type]


Pair = tuple[Runner, Runner]


@pytest.fixture(scope="module")
def pair() -> Pair:
    """One network with each engine, converted once."""
    net = small_net()
    return make_runner(net, engine="torch"), make_runner(net, engine="openvino")


@needs_openvino
@pytest.mark.parametrize("shape", [(1, 224, 224), (5, 224, 224), (3, 48, 96), (2, 16, 16)])
def test_openvino_gives_what_torch_gives(pair: Pair, shape: tuple[int, int, int]) -> None:
    """Any number of tiles of any size, though it was converted with one of 32 x 32."""
    count, height, width = shape
    tiles = np.random.default_rng(0).random((count, 2, height, width), dtype=np.float32)
    expected, found = pair
    for one, other in zip(expected.run(tiles), found.run(tiles, batch_size=2), strict=True):
        assert one is not None and other is not None
        np.testing.assert_allclose(other, one, atol=2e-5)
    np.testing.assert_allclose(found.styles(tiles), expected.styles(tiles), atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_the_real_model_keeps_its_flows(shared: Path, amp: torch.dtype | None) -> None:
    """In bfloat16 OpenVINO strays from float32 no further than torch does."""
    net = load_model_file(shared / "models" / "usiigaci_unet").net
    tiles = np.random.default_rng(1).random((2, 2, 96, 96), dtype=np.float32)
    exact = make_runner(net).run(tiles)[0]
    torch_error = np.abs(make_runner(net, amp=amp).run(tiles)[0] - exact).mean()
    error = np.abs(make_runner(net, engine="openvino", amp=amp).run(tiles)[0] - exact).mean()
    assert error <= (1e-4 if amp is None else 1.5 * torch_error)


@needs_openvino
def test_the_style_alone_is_that_of_the_whole(pair: Pair) -> None:
    image = np.random.default_rng(2).random((2, 70, 300), dtype=np.float32)
    runner = pair[1]
    flows = image_to_flows(runner, image, rescale=0.9)
    style = image_to_style(runner, image, rescale=0.9)
    assert flows.style is not None
    np.testing.assert_allclose(style, flows.style, atol=1e-6)


@needs_openvino
def test_other_channels_and_threads() -> None:
    """Calls from several threads at once wait for each other."""
    net = small_net(channels=1)
    tiles = np.random.default_rng(3).random((4, 1, 64, 64), dtype=np.float32)
    expected = make_runner(net).run(tiles)[0]
    runner, found = make_runner(net, engine="openvino"), {}

    def work(number: int) -> None:
        found[number] = runner.run(tiles)[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_allclose(found[number], expected, atol=2e-5)


@needs_openvino
def test_what_is_not_a_number_is_said() -> None:
    net = small_net()
    net.output[2].bias.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError):
        image_to_flows(
            make_runner(net, engine="openvino"), np.ones((2, 40, 40), np.float32), rescale=1
        )


@needs_openvino
def test_nothing_is_reported_to_anyone() -> None:
    """OpenVINO's package that tells its makers of its use is not so much as imported."""
    code = (
        "import sys, numpy\n"
        "from cellflow.nn.networks import UNet\n"
        "from cellflow.nn.runners import make_runner\n"
        "net = UNet(widths=(4, 8)).eval()\n"
        "make_runner(net, engine='openvino').run(numpy.zeros((1, 2, 16, 16), numpy.float32))\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_openvino
@pytest.mark.slow
def test_signals_are_survived() -> None:
    """Runners come and go; then a child ends, whose signal a handler waits for."""
    code = (
        "import gc, signal, subprocess, sys, numpy\n"
        "from cellflow.nn.networks import UNet\n"
        "from cellflow.nn.runners import make_runner\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('child'))\n"
        "def made():\n"
        "    runner = make_runner(UNet(widths=(4, 8)).eval(), engine='openvino')\n"
        "    runner.run(numpy.zeros((1, 2, 16, 16), numpy.float32))\n"
        "    return runner\n"
        "first, second = made(), made()\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "subprocess.run([sys.executable, '-c', ''])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "child\n"), done.stderr


def test_the_engine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    assert choose_engine("torch", CPU) == "torch"
    assert choose_engine("auto", torch.device("cuda")) == "torch"
    monkeypatch.setattr(runners.choose.platform, "machine", lambda: "arm64")
    assert choose_engine("auto", CPU) == "torch"
    monkeypatch.setattr(runners.choose.platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(runners.choose.importlib.util, "find_spec", lambda name: object())
    assert choose_engine("auto", CPU) == "openvino"
    monkeypatch.setenv(ENGINE_VARIABLE, "torch")
    assert choose_engine("auto", CPU) == "torch"
    assert choose_engine("openvino", CPU) == "openvino"


def test_what_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="runs on the CPU, found --device cuda"):
        choose_engine("openvino", torch.device("cuda"))
    monkeypatch.setenv(ENGINE_VARIABLE, "tpu")
    with pytest.raises(ConfigError, match="found 'CELLFLOW_ENGINE=tpu'"):
        choose_engine("auto", CPU)
    monkeypatch.delenv(ENGINE_VARIABLE)
    monkeypatch.setattr(runners.choose.importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto", CPU) == "torch"
    with pytest.raises(PackageError, match="pip install openvino"):
        choose_engine("openvino", CPU)


@needs_openvino
@pytest.mark.slow
def test_a_conversion_is_kept_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of these weights: others have their own, and a damaged one is made anew."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    tiles = np.random.default_rng(6).random((1, 2, 32, 32), dtype=np.float32)
    net = small_net()

    def run() -> np.ndarray:
        return make_runner(net, engine="openvino", keep=True).run(tiles)[0]

    first = run()
    (folder,) = (tmp_path / "openvino").iterdir()
    monkeypatch.setattr(openvino_runner, "_convert", pytest.fail)  # not needed a second time
    np.testing.assert_array_equal(run(), first)
    monkeypatch.undo()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    next(folder.glob("*.bin")).write_bytes(b"cut")
    np.testing.assert_array_equal(run(), first)
    net.output[2].bias.data += 1.0
    np.testing.assert_allclose(run(), first + 1.0, atol=1e-5)
    assert len(list((tmp_path / "openvino").iterdir())) == 2


@needs_openvino
def test_a_network_with_other_code_is_converted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubled(UNet):
        def forward(self, tiles: torch.Tensor):  # type: ignore[no-untyped-def]
            output, style, features = super().forward(tiles)
            return 2 * output, style, features

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    net, other = small_net(), Doubled(widths=(8, 16, 32)).eval()
    other.load_state_dict(net.state_dict())
    tiles = np.ones((1, 2, 16, 16), np.float32)
    one, two = (make_runner(n, engine="openvino", keep=True).run(tiles)[0] for n in (net, other))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5)


def test_the_code_of_the_layers_counts_too() -> None:
    code = conversions._code(small_net())
    assert code is not None
    assert all(any(f"class {name}(" in text for text in code) for name in ("UNet", "WayDown"))


@needs_openvino
def test_a_network_typed_at_a_prompt_is_converted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    names = {"UNet": UNet, "__name__": "__prompt__"}  # of a module that has no file
    exec("class Typed(UNet): ...", names)
    runner = make_runner(names["Typed"](widths=(4, 8)).eval(), engine="openvino", keep=True)
    assert runner.run(np.ones((1, 2, 16, 16), np.float32))[0].shape == (1, 3, 16, 16)
    assert not (tmp_path / "openvino").exists()


@needs_openvino
def test_few_conversions_are_kept_and_none_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversions, "KEPT", 1)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    tiles = np.ones((1, 2, 16, 16), np.float32)
    for shift in (0.0, 1.0):
        net = UNet(widths=(4, 8)).eval()
        net.output[2].bias.data += shift
        make_runner(net, engine="openvino", keep=True).run(tiles)
    assert len(list((tmp_path / "openvino").iterdir())) == 1
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert make_runner(net, engine="openvino", keep=True).run(tiles)[0].shape == (1, 3, 16, 16)

"""Which engine runs a network."""

from __future__ import annotations

import importlib.util
import os
import platform

import torch

from cellflow.errors import ConfigError, PackageError
from cellflow.nn.networks import Network
from cellflow.nn.runners.openvino_runner import OpenVinoRunner
from cellflow.nn.runners.runner import Engine, Runner
from cellflow.nn.runners.torch_runner import TorchRunner

__all__ = ["ENGINE_VARIABLE", "choose_engine", "make_runner"]

ENGINE_VARIABLE = "CELLFLOW_ENGINE"
"""Environment variable with the engine that ``--engine auto`` takes."""
X86 = ("x86_64", "amd64")
"""Processors on which OpenVINO was measured to be the faster engine."""


def make_runner(
    net: Network, *, engine: Engine = "torch", amp: torch.dtype | None = None, keep: bool = False
) -> Runner:
    """A network in evaluation mode, ready to predict with an engine of `choose_engine`.

    With `keep` what an engine makes of the network is kept on disk, for the next time.
    """
    return OpenVinoRunner(net, amp, keep=keep) if engine == "openvino" else TorchRunner(net, amp)


def choose_engine(name: str, device: torch.device) -> Engine:
    """Engine by name; `auto` takes OpenVINO on x86 processors where it is installed, else torch.

    Raises
    ------
    ConfigError
        If the name is unknown, or the engine does not run on the device.
    PackageError
        If OpenVINO was asked for and is not installed.
    """
    asked = name
    if name == "auto":
        name = os.environ.get(ENGINE_VARIABLE) or "auto"
        asked = f"{ENGINE_VARIABLE}={name}"
    there = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        wins = device.type == "cpu" and there and platform.machine().lower() in X86
        return "openvino" if wins else "torch"
    if name == "torch":
        return "torch"
    if name != "openvino":
        raise ConfigError(f"--engine must be auto, torch or openvino, found {asked!r}.", found=name)
    if device.type != "cpu":
        raise ConfigError(
            f"--engine openvino runs on the CPU, found --device {device.type}. Use --engine torch, or "
            "--device cpu.",
            found=device.type,
        )  # fmt: skip
    if not there:
        raise PackageError("--engine openvino needs OpenVINO. Install it: pip install openvino")
    return "openvino"

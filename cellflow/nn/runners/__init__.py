"""Networks that are ready to predict: the engines that run them, one file each, and the choice of one."""

from cellflow.nn.runners.choose import ENGINE_VARIABLE, choose_engine, make_runner
from cellflow.nn.runners.openvino_runner import OpenVinoRunner
from cellflow.nn.runners.runner import Engine, Runner
from cellflow.nn.runners.torch_runner import TorchRunner

__all__ = [
    "ENGINE_VARIABLE",
    "Engine",
    "OpenVinoRunner",
    "Runner",
    "TorchRunner",
    "choose_engine",
    "make_runner",
]

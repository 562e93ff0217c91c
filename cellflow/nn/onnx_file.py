"""Networks as ONNX files, for programs without torch."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from cellflow.errors import PackageError
from cellflow.nn.networks import Network
from cellflow.storage.atomic import atomic_path

__all__ = ["OPSET", "check_onnx", "save_onnx"]

OPSET = 17
"""Of the operators; programs from 2022 on know it."""
_SIDE = 64
"""Side of the tile that a network is traced with; it then takes tiles of any size."""
_AXES = {0: "batch", 2: "height", 3: "width"}


def check_onnx() -> None:
    """Make sure that ONNX files can be written.

    Raises
    ------
    PackageError
        If the package onnx is missing.
    """
    if importlib.util.find_spec("onnx") is None:
        raise PackageError(
            "ONNX files need the package onnx. Install it with: pip install 'cellflow[onnx]'"
        )


def save_onnx(
    path: Path, nets: Sequence[Network], facts: Mapping[str, str], *, style: bool = True
) -> None:
    """Write one network, or several whose outputs are averaged, atomically.

    The input ``image`` is ``(batch, channels, height, width)`` float32, its sides multiples of what the
    network takes. The output ``output`` is ``(batch, 3, height, width)``: dY, dX (5 times the unit flow) and
    the logit; ``style`` is ``(batch, style_size)``, of one network that has styles.

    Parameters
    ----------
    path : Path
        File to write.
    nets : sequence of Network
        On the CPU, in evaluation mode, of equal channels.
    facts : mapping of str to str
        Metadata of the file.
    style : bool
        Whether the style is an output.

    Raises
    ------
    PackageError
        If the package onnx is missing.
    """
    check_onnx()
    import onnx

    with_style = style and len(nets) == 1 and nets[0].style_size is not None
    module = _Mean(nets, with_style).eval()
    names = ["output", "style"] if with_style else ["output"]
    axes = {"image": _AXES, "output": _AXES, "style": {0: "batch"}}
    with atomic_path(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            # A trace, as for OpenVINO: it takes no package beside torch and a thirtieth of the time of the
            # newer exporter, which is what the warnings advise.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(1, nets[0].channels, _SIDE, _SIDE),),
                str(temporary),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=names,
                dynamic_axes={name: axes[name] for name in ["image", *names]},
            )
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, dict(facts))
        onnx.checker.check_model(model)
        onnx.save(model, temporary)


class _Mean(nn.Module):
    """The mean output of networks, and the style of a single one."""

    def __init__(self, nets: Sequence[Network], with_style: bool):
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.with_style = with_style

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = [net(tiles) for net in self.nets]
        if self.with_style:
            return outputs[0][0], outputs[0][1]
        return (torch.stack([item[0] for item in outputs]).mean(dim=0),)

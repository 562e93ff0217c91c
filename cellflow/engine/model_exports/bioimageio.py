"""Packages of the BioImage Model Zoo: one of every fold, as a state dict with its class and as ONNX."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray

from cellflow.engine.model_exports.job import ModelExportJob
from cellflow.engine.model_exports.onnx import onnx_facts
from cellflow.errors import DataError
from cellflow.io.bioimageio_package import PackageParts, check_bioimageio, write_package
from cellflow.io.images import read_image
from cellflow.nn.networks import Network, UNet, unet_layers
from cellflow.nn.onnx_file import OPSET, check_onnx, save_onnx
from cellflow.numeric.normalize import network_channels, select_channels
from cellflow.numeric.resize import resize_linear
from cellflow.report.overlays import draw_outlines, grey_or_rgb
from cellflow.report.text.model_card import model_card
from cellflow.synthetic import synthetic_dataset

__all__ = ["export_bioimageio"]

_SIDE = 256
"""Sides of the test image, network pixels."""
_GENERATED = (192, 192)
"""Shape of the image that is generated where none is given, at cells of `_CELL` pixels."""

_USAGE = """This package is for programs that run models of [bioimage.io](https://bioimage.io). The network takes an
image whose cells are {diam_mean:g} pixels across: rescale yours by {diam_mean:g} / diameter first. {diameter:.1f}
pixels is the mean of the training images. Sides are multiples of {multiple}. Channels: {channels}; give zeros
as the second where there is none. Its values are normalised by the package.

What comes out are no masks but flows: `flow_y`, `flow_x` (5 times the unit flow) and `cellprob`, a logit. Masks are
made of them in Python, without torch:

```python
import cellflow
labels = cellflow.flows_to_labels(flows[:2], flows[2], cellprob_threshold={cellprob_threshold:g},
                                  flow_threshold={flow_threshold:g}, min_size={min_size})
```

`{architecture}` holds the network and needs nothing but torch."""
_ARCHITECTURE = "cellpose_unet.py"


def export_bioimageio(job: ModelExportJob, folder: Path) -> list[Path]:
    """Write a package of every fold into a folder, each tested by the Zoo's library."""
    check_bioimageio()
    check_onnx()
    image = _sample(job.config.sample)
    files = []
    for fold in job.members:
        files.append(folder / f"{job.run.name}_fold_{fold}.zip")
        with TemporaryDirectory() as scratch:
            write_package(files[-1], _parts(job, fold, image, Path(scratch)))
    return [*files, job.write_card(folder, _usage(job, next(iter(job.members))))]


def _parts(job: ModelExportJob, fold: int, image: NDArray[Any], folder: Path) -> PackageParts:
    """Everything that goes into a package, written into a folder."""
    member, facts = job.members[fold], job.facts_of(fold)
    net, diameter = member.net, job.opened.diameter or member.diam_labels
    tile = _tile(
        select_channels(image, member.chan, member.chan2), member.diam_mean / diameter, net
    )
    normal = network_channels(np.moveaxis(tile, 0, -1), 1, 2 if member.chan2 else 0)
    with torch.inference_mode():
        output = net(torch.from_numpy(normal[np.newaxis, : net.channels]))[0].numpy()
    np.save(folder / "test_input.npy", tile[np.newaxis, : net.channels])
    np.save(folder / "test_output.npy", output)
    labels = job.segmenter(fold).predict(image).labels
    (folder / "cover.png").write_bytes(imagecodecs.png_encode(_cover(image, labels)))
    readme = model_card(facts, _usage(job, fold))
    (folder / "README.md").write_text(readme, encoding="utf-8")
    save_onnx(folder / "weights.onnx", [net], onnx_facts(job, fold), style=False)
    return PackageParts(
        name=f"cellflow {facts.name} fold {fold}",
        description=facts.description,
        authors=facts.authors,
        license=facts.license,
        readme=folder / "README.md",
        cover=folder / "cover.png",
        test_input=folder / "test_input.npy",
        test_output=folder / "test_output.npy",
        channels=["cells", "nuclei"][: net.channels],
        multiple=net.multiple,
        torch_version=torch.__version__,
        onnx=folder / "weights.onnx",
        opset=OPSET,
        facts=onnx_facts(job, fold),
        **_state_dict(job.run.fold(fold).best, net, folder),
    )


def _state_dict(model: Path, net: Network, folder: Path) -> dict[str, Any]:
    """The weights, and the file with their class; only Cellpose's U-Net is there as plain torch."""
    if type(net) is not UNet:
        return {}
    shutil.copyfile(str(unet_layers.__file__), folder / _ARCHITECTURE)
    shutil.copyfile(model, folder / "weights.pt")
    widths = [block.proj[1].out_channels for block in net.downsample.down]  # type: ignore[union-attr,index]
    return {
        "weights": folder / "weights.pt",
        "architecture": folder / _ARCHITECTURE,
        "callable": unet_layers.PlainUNet.__name__,
        "arguments": {"channels": net.channels, "widths": widths},
    }


def _usage(job: ModelExportJob, fold: int) -> str:
    member, mask = job.members[fold], job.opened.thresholds.shared
    return _USAGE.format(
        diam_mean=member.diam_mean,
        diameter=job.opened.diameter or member.diam_labels,
        multiple=member.net.multiple,
        channels="the cells, then the nuclei" if member.net.channels > 1 else "the cells",
        cellprob_threshold=mask.cellprob_threshold,
        flow_threshold=mask.flow_threshold,
        min_size=mask.min_size,
        architecture=_ARCHITECTURE,
    )


def _sample(path: Path | None) -> NDArray[Any]:
    """The image that everybody will see: one that was given, else one that shows nobody's data."""
    if path is None:
        return next(iter(synthetic_dataset(1, shape=_GENERATED, seed=1, per_group=1))).image
    return read_image(path)


def _tile(channels: NDArray[np.float32], rescale: float, net: Network) -> NDArray[np.float32]:
    """The middle of an image at the network's scale, ``(2, H, W)``, with the sides that it takes."""
    height, width = channels.shape[1:]
    large = (max(1, int(height * rescale)), max(1, int(width * rescale)))
    scaled = resize_linear(channels, large)
    sides = [min(length, _SIDE) // net.multiple * net.multiple for length in large]
    if min(sides) < 4 * net.multiple:
        raise DataError(
            f"The sample must be larger: at the network's scale it has {large[0]} x {large[1]} pixels, expected at "
            f"least {4 * net.multiple} x {4 * net.multiple}. Give another --sample.",
            expected=4 * net.multiple, found=large,
        )  # fmt: skip
    starts = [(length - side) // 2 for length, side in zip(large, sides, strict=True)]
    rows, columns = (slice(a, a + side) for a, side in zip(starts, sides, strict=True))
    return np.ascontiguousarray(scaled[:, rows, columns])


def _cover(image: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """The image, and beside it the image with the outlines of its cells: twice as wide as high."""
    side = min(labels.shape)
    square = (slice(0, side), slice(0, side))
    return np.concatenate(
        [grey_or_rgb(image)[square], draw_outlines(image, labels)[square]], axis=1
    )

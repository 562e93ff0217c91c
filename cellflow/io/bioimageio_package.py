"""Packages of the BioImage Model Zoo, https://bioimage.io: written and tested by its own libraries."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from cellflow.errors import CellflowError, ConfigError, PackageError
from cellflow.storage.atomic import atomic_path

__all__ = ["PackageParts", "check_bioimageio", "write_package"]

_CITE = (
    ("Stringer et al., Cellpose: a generalist algorithm for cellular segmentation", "10.1038/s41592-020-01018-x"),
    ("Pachitariu and Stringer, Cellpose 2.0: how to train your own model", "10.1038/s41592-022-01663-4"),
)  # fmt: skip
_TAGS = ["cellpose", "cellflow", "instance-segmentation", "cells", "2d", "unet", "microscopy"]
_FOREIGN = re.compile(r"[^A-Za-z0-9_+\-() ]")
"""What names of models may not have."""
_STRICT_PYDANTIC, _SPEC_FOR_IT = Version("2.14"), Version("0.5.14")
"""From this pydantic on a call that earlier bioimageio.spec makes is an error; bioimageio.core 0.11 wants 0.5.12."""
_LEAST = 64
"""Smallest side of an image, pixels."""


@dataclass(frozen=True)
class PackageParts:
    """What a package is made of; files are given by their paths.

    Attributes
    ----------
    name, description : str
        For people.
    authors, license : sequence of str, str
        Names, and the licence as SPDX has it.
    readme, cover, test_input, test_output : Path
        Documentation with a section about validation, a picture, and arrays ``(1, C, H, W)`` as NPY: an image
        as it comes, and the network's output.
    channels : sequence of str
        Names of the input channels.
    multiple : int
        Sides of images are multiples of it.
    weights, architecture : Path
        State dict, and the file with its class; none for a network that is not there as plain torch.
    callable, arguments : str, mapping
        The class, and what it takes.
    torch_version : str
        Version of torch that wrote the weights.
    onnx, opset : Path, int
        The same network as ONNX, where it was written.
    facts : mapping
        What the description has no place for: diameters, thresholds.
    """

    name: str
    description: str
    authors: Sequence[str]
    license: str
    readme: Path
    cover: Path
    test_input: Path
    test_output: Path
    channels: Sequence[str]
    multiple: int
    torch_version: str
    weights: Path | None = None
    architecture: Path | None = None
    callable: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    onnx: Path | None = None
    opset: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def check_bioimageio() -> None:
    """Make sure that packages can be written and tested.

    Raises
    ------
    PackageError
        If bioimageio.core, or onnxruntime for the test of ONNX, is missing; or bioimageio.spec is of a
        version that fails with the pydantic that is there.
    """
    for module in ("bioimageio.core", "onnxruntime"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            text = f"bioimage.io packages need {module}. Install it with: pip install 'cellflow[bioimageio]'"
            raise PackageError(text)
    pydantic, spec = version("pydantic"), version("bioimageio.spec")
    if Version(pydantic) >= _STRICT_PYDANTIC and Version(spec) < _SPEC_FOR_IT:
        raise PackageError(
            f"bioimageio.spec {spec} describes no model with pydantic {pydantic}. Install an older one with: "
            f"pip install 'pydantic<{_STRICT_PYDANTIC}'"
        )


def write_package(path: Path, parts: PackageParts) -> None:
    """Write a package, and run the Zoo's own test on it: the test tensors with every form of the weights.

    Raises
    ------
    PackageError
        If a library is missing.
    ConfigError
        If an author or the licence is not as the Zoo wants it.
    CellflowError
        If the package fails the test; nothing is written then.
    """
    check_bioimageio()
    with _quiet():
        import pydantic
        from bioimageio.spec import save_bioimageio_package

        try:
            description = _describe(parts)
        except pydantic.ValidationError as error:
            raise ConfigError(
                f"The bioimage.io package cannot be described: {_first(error)}. --license is an SPDX name such "
                "as CC-BY-4.0, --author a name."
            ) from None
        with atomic_path(path) as temporary:
            save_bioimageio_package(description, output_path=temporary)
            _test(temporary)


def _describe(parts: PackageParts) -> Any:
    """The description of a model, as rdf.yaml has it, with links to its files."""
    from bioimageio.spec.model.v0_5 import ModelDescr

    facts = {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,
        "name": _FOREIGN.sub("_", parts.name)[:128],
        "description": parts.description[:512],
        "authors": [{"name": name} for name in parts.authors],
        "license": parts.license,
        "cite": [{"text": text, "doi": doi} for text, doi in _CITE],
        "tags": _TAGS,
        "documentation": {"source": parts.readme},
        "covers": [{"source": parts.cover}],
        "inputs": [_input(parts)],
        "outputs": [_output(parts)],
        "weights": _weights(parts),
        "config": {"cellflow": dict(parts.facts)},
    }
    return ModelDescr.model_validate(facts)


def _input(parts: PackageParts) -> dict[str, Any]:
    size = {"min": _LEAST, "step": parts.multiple}
    percentiles = {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.0}
    return {
        "id": "image",
        "description": "image, rescaled so that cells have the diameter that the network works at",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(parts.channels)},
            {"type": "space", "id": "y", "size": size},
            {"type": "space", "id": "x", "size": size},
        ],
        "data": {"type": "float32"},
        "preprocessing": [{"id": "scale_range", "kwargs": percentiles}],
        "test_tensor": {"source": parts.test_input},
    }


def _output(parts: PackageParts) -> dict[str, Any]:
    return {
        "id": "flows",
        "description": "flow along y and x, 5 times the unit flow, and the logit of the cell probability",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["flow_y", "flow_x", "cellprob"]},
            {"type": "space", "id": "y", "size": {"tensor_id": "image", "axis_id": "y"}},
            {"type": "space", "id": "x", "size": {"tensor_id": "image", "axis_id": "x"}},
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": parts.test_output},
    }


def _weights(parts: PackageParts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if parts.weights is not None:
        found["pytorch_state_dict"] = {
            "source": parts.weights,
            "architecture": {
                "source": parts.architecture,
                "callable": parts.callable,
                "kwargs": dict(parts.arguments),
            },
            "pytorch_version": parts.torch_version.partition("+")[0],
        }
    if parts.onnx is not None:
        parent = {"parent": "pytorch_state_dict"} if found else {}
        found["onnx"] = {"source": parts.onnx, "opset_version": parts.opset, **parent}
    return found


def _test(path: Path) -> None:
    from bioimageio.core import test_model

    summary = test_model(path)
    if summary.status != "passed":
        reasons = [
            f"{detail.name}: {error.msg}" for detail in summary.details for error in detail.errors
        ]
        raise CellflowError(
            f"The package does not pass the test of bioimageio.core ({summary.status}): "
            f"{'; '.join(reasons)[:500] or 'no reason given'}. Nothing was written.",
            expected="passed", found=summary.status,
        )  # fmt: skip


def _first(error: Any) -> str:
    """The first thing that is wrong, in a few words."""
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc'][:2]))}: {item['msg']}, found {item.get('input')!r:.60}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of bioimageio's libraries, which goes to standard error."""
    from loguru import logger

    logger.disable("bioimageio")
    try:
        yield
    finally:
        logger.enable("bioimageio")

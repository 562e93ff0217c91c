"""Model files that Cellpose 3 itself loads, with our facts about them, and training states.

A model file is a plain state dict. Facts ride in its ``_metadata["cellflow"]``, which torch keeps and
Cellpose ignores. Nothing here ever unpickles more than tensors and Python primitives.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from cellflow.errors import CheckpointError
from cellflow.nn.unet import build_unet
from cellflow.storage.atomic import atomic_path

__all__ = [
    "Loaded",
    "find_model_file",
    "load_model_file",
    "load_state",
    "save_model_file",
    "save_state",
]

NUCLEI_DIAMETER = 17.0
"""Diameter in pixels of Cellpose's nuclei models, whose files do not tell."""

_KEY = "cellflow"
_STORED_NAMES = {name: f"{name}torch_0" for name in ("cyto", "cyto2", "nuclei")}
"""Names in Cellpose's model folder that are not the names people use."""
_FIRST = "downsample.down.res_down_0.conv.conv_0.2.weight"
_LAST = "output.2.weight"


class Loaded(NamedTuple):
    """A network and the facts stored with it (empty for a file that Cellpose wrote)."""

    net: nn.Module
    facts: dict[str, Any]


def save_model_file(path: Path, net: nn.Module, facts: dict[str, Any]) -> None:
    """Write a network's weights as a file that Cellpose 3 loads, atomically.

    Parameters
    ----------
    path : Path
        File to write.
    net : torch.nn.Module
        From `build_unet`.
    facts : dict
        JSON types only: epoch, score, channels, diameters, hashes.
    """
    state = net.state_dict()
    for name, value in state.items():
        # Contiguous on the CPU: the file does not depend on where or in which layout it was trained.
        state[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    state._metadata[_KEY] = facts  # type: ignore[attr-defined]
    save_state(path, state)


def load_model_file(path: Path) -> Loaded:
    """Load a model file of cellflow or Cellpose 3 onto the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of Cellpose 4, or of another network.
    """
    path = Path(path)
    state = _read(path)
    if "W2" in state:
        raise CheckpointError(
            f"{path} is a Cellpose 4 model. cellflow takes Cellpose 3 (U-Net) files."
        )
    if _FIRST not in state or _LAST not in state:
        raise CheckpointError(
            f"{path} is no Cellpose 3 U-Net: its first keys are "
            f"{', '.join(map(str, list(state)[:3])) or 'none'}."
        )
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise CheckpointError(
            f"{path} is no Cellpose 3 U-Net: {odd[0]} is no array of weights but "
            f"{type(state[odd[0]]).__name__}."
        )
    net = build_unet()
    own = net.state_dict()
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    # Older Cellpose files have no diameters; the defaults of the network stand for them.
    missing -= {"diam_mean", "diam_labels"}
    shapes = [
        f"{name}: expected {tuple(own[name].shape)}, found {tuple(state[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if missing or unknown or shapes:
        raise CheckpointError(_mismatch(path, sorted(missing), sorted(unknown), sorted(shapes)))
    if "diam_mean" not in state and path.name.startswith("nuclei"):
        state["diam_mean"] = state["diam_labels"] = torch.tensor([NUCLEI_DIAMETER])
    net.load_state_dict(state, strict=False)
    metadata = getattr(state, "_metadata", {})
    facts = metadata.get(_KEY, {}) if isinstance(metadata, dict) else {}
    return Loaded(net.eval(), dict(facts) if isinstance(facts, dict) else {})


def find_model_file(name: str) -> Path:
    """Path of a model file given by path or by the name it has in Cellpose's model folder.

    Nothing is ever downloaded.

    Raises
    ------
    CheckpointError
        If there is no such file.
    """
    path = Path(name).expanduser()
    folder = Path(
        os.environ.get("CELLPOSE_LOCAL_MODELS_PATH", Path.home() / ".cellpose" / "models")
    )
    stored = folder / _STORED_NAMES.get(name, name)
    for candidate in (path, stored):
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"No model file {name!r}: looked for {path} and {stored}. "
        "Give the path of a Cellpose 3 model file, or none to train from scratch."
    )


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors and Python primitives) atomically."""
    # Through memory, because torch turns a full disk into a RuntimeError that does not say so.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state onto the CPU.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"No model file at {path}.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        _check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of any kind: what torch and its unpickler raise depends on the damage
        # torch's own text is long, and advises to load the file unsafely
        raise CheckpointError(
            f"{path} cannot be read as a model file: it is truncated, damaged or of another kind."
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: expected a dictionary of weights, found {type(state).__name__}."
        )
    return cast("dict[str, Any]", state)


def _check_zip(path: Path) -> None:
    """Check the sums in a file of today's format, which torch does not: a flipped bit may sit in a weight.

    Raises
    ------
    Exception
        Of whatever kind, if it is damaged, or claims more than it holds.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            size = sum(item.file_size for item in file.infolist())
            if size > path.stat().st_size or file.testzip() is not None:
                raise zipfile.BadZipFile


def _mismatch(path: Path, missing: list[str], unknown: list[str], shapes: list[str]) -> str:
    parts = [f"{path} does not fit Cellpose 3's U-Net with 2 channels in and 3 out."]
    for title, items in (("missing", missing), ("unknown", unknown), ("other shape", shapes)):
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            parts.append(f"{title}: {', '.join(items[:3])}{more}")
    return " ".join(parts)

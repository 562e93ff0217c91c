"""Model files that Cellpose 3 itself loads, with our facts about them, and training states.

A model file is a plain state dict. Facts ride in its ``_metadata["cellflow"]``, which torch keeps and
Cellpose ignores. Nothing here ever unpickles more than tensors and Python primitives.
"""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch

from cellflow.errors import CheckpointError
from cellflow.nn.networks import NETWORKS, Network
from cellflow.storage.atomic import atomic_path
from cellflow.storage.zips import names_in_zip
from cellflow.types import shorten

__all__ = [
    "Loaded",
    "load_model_file",
    "load_state",
    "network_of_file",
    "save_model_file",
    "save_state",
]

_KEY = "cellflow"
_KIND = "network"
"""The fact that says a network's kind."""
_OLD_PICKLES = 5
"""In a file of before torch 1.6: a magic number, a version, the machine, what is stored, and the keys of its arrays."""
_LONGEST = 10_000
"""Characters of a name or text in a model file; those of real files have less than 100."""
_PARALLEL = "module."
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Entries in which other programs keep the weights."""
_MARKS = {
    b"<": "a page of the web, such as a server sends in place of a file",
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "a NumPy array, such as Cellpose's size models",
}
"""First bytes of what people take for model files."""
_ZIPS = {
    "archive.json": "an archive of a run, which predict, ensemble and load_model take; the model files in it are "
    "fold_0/best.pt and so on",
    "rdf.yaml": "a package for bioimage.io; the model file in it is weights.pt",
}
"""Files in zips that people take for model files."""


class Loaded(NamedTuple):
    """A network and the facts stored with it (empty for a file that Cellpose wrote)."""

    net: Network
    facts: dict[str, Any]


def save_model_file(path: Path, net: Network, facts: dict[str, Any]) -> None:
    """Write a network's weights as a state dict, atomically; Cellpose 3 loads that of its U-Net.

    Parameters
    ----------
    path : Path
        File to write.
    net : Network
        Its kind joins the facts.
    facts : dict
        JSON types only: epoch, score, channels, diameters, hashes.
    """
    state = net.state_dict()
    for name, value in state.items():
        # Contiguous on the CPU: the file does not depend on where or in which layout it was trained.
        state[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    state._metadata[_KEY] = facts | {_KIND: net.kind}  # type: ignore[attr-defined]
    save_state(path, state)


def load_model_file(path: Path) -> Loaded:
    """Load a model file of cellflow or Cellpose 3 onto the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of Cellpose 4, or of a network that is not known.
    """
    path = Path(path)
    state = _read_weights(path)
    facts = _facts(state)
    network = _network_of(state, facts.get(_KIND), path)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path} is no model file: {name} is no array of weights but {type(value).__name__}.",
                path=path, expected=torch.Tensor, found=type(value),
            )  # fmt: skip
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: the weights {name} are not all numbers.", path=path)
    return Loaded(network.load(state, path).eval(), facts)


def network_of_file(path: Path) -> type[Network]:
    """The network whose weights a model file holds.

    Raises
    ------
    CheckpointError
        As `load_model_file`.
    """
    state = _read_weights(path)
    return _network_of(state, _facts(state).get(_KIND), path)


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


def _read_weights(path: Path) -> dict[str, Any]:
    """The state dict of a model file; that of a network inside of a ``DataParallel`` without its prefix.

    Raises
    ------
    CheckpointError
        If it cannot be read, or the weights are an entry of what it holds.
    """
    state = _read(path)
    inner = next((key for key in _WRAPPERS if isinstance(state.get(key), dict)), None)
    if inner is not None:
        raise CheckpointError(
            f"{path} is no plain model file: its weights are the entry {inner!r}. Save them by themselves: "
            f"torch.save(torch.load({str(path)!r})[{inner!r}], 'model.pt')",
            path=path, found=inner,
        )  # fmt: skip
    if state and all(isinstance(key, str) and key.startswith(_PARALLEL) for key in state):
        return {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return state


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"No model file at {path}.", path=path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from None
    try:
        _check_zip(path)
        _check_words(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a foreign pickle may hold
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of any kind: what torch and its unpickler raise depends on the damage
        # torch's own text is long, and advises to load the file unsafely
        raise CheckpointError(
            f"{path} cannot be read as a model file: {_what_it_is(path)}. Give another file, "
            "or copy or download it again.",
            path=path,
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: expected a dictionary of weights, found {type(state).__name__}."
        )
    odd = [key for key in state if not isinstance(key, str)]
    if odd:
        text = f"{path} is no model file: {shorten(repr(odd[0]), 80)} is no name of weights."
        raise CheckpointError(text, path=path, found=odd[0])
    return cast("dict[str, Any]", state)


def _what_it_is(path: Path) -> str:
    """What a file seems to be that is no model file, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        return "it is empty"
    for mark, kind in _MARKS.items():
        if start.startswith(mark):
            return f"it is {kind}"
    if start[8:9] == b"{":
        return "it is a safetensors file; load it with safetensors and save it with torch.save"
    inside = names_in_zip(path) if start.startswith(b"PK") else []
    for name, kind in _ZIPS.items():
        if name in inside:
            return f"it is {kind}"
    if start.startswith(b"PK"):
        return "it is truncated or damaged, or holds more than weights (a whole network, say)"
    if start.startswith(b"\x80"):
        return "it is a pickle of another program, or damaged"
    return "it is truncated, damaged or of another kind"


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


def _check_words(path: Path) -> None:
    """Check that no name or text in a model file is of a length that only damage gives.

    For its message, torch searches an unknown name of n characters in n squared steps: a minute for 70 kB.

    Raises
    ------
    Exception
        Of whatever kind, if one is longer, or what should be pickles is none.
    """
    with path.open("rb") as file:
        pickles: list[IO[bytes]] = [file] * _OLD_PICKLES
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                pickles = [io.BytesIO(archive.read(name))]
        else:
            file.seek(0)
        for stream in pickles:
            for _, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str | bytes) and len(argument) > _LONGEST:
                    raise ValueError(f"a text of {len(argument):,} characters")


def _facts(state: dict[str, Any]) -> dict[str, Any]:
    """What cellflow stored with the weights; nothing in a file that Cellpose wrote."""
    metadata = getattr(state, "_metadata", {})
    facts = metadata.get(_KEY, {}) if isinstance(metadata, dict) else {}
    return dict(facts) if isinstance(facts, dict) else {}


def _network_of(state: dict[str, Any], kind: Any, path: Path) -> type[Network]:
    """The network of a kind; that of the keys where a file names none."""
    if kind is not None:
        if isinstance(kind, str) and kind in NETWORKS:
            return NETWORKS[kind]
        known = ", ".join(sorted(NETWORKS))
        raise CheckpointError(
            f"{path} holds the weights of the network {kind!r}. This cellflow knows {known}. Update "
            "cellflow, or load what adds the network first.",
            path=path, expected=known, found=kind,
        )  # fmt: skip
    if "W2" in state or any(str(key).startswith("encoder.patch_embed") for key in state):
        raise CheckpointError(
            f"{path} is a Cellpose 4 model. cellflow takes Cellpose 3 (U-Net) files.", path=path
        )
    for network in NETWORKS.values():
        if network.file_keys and state.keys() >= set(network.file_keys):
            return network
    keys = ", ".join(map(str, list(state)[:3])) or "none"
    raise CheckpointError(
        f"{path} is no Cellpose 3 U-Net: its first keys are {keys}.", path=path, found=keys
    )

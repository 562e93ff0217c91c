"""Networks as members of an ensemble."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellflow.engine.runtime.machine import Machine
from cellflow.errors import CheckpointError, RunError
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.networks import Network
from cellflow.nn.precision import choose_layout, set_layout
from cellflow.nn.runners import Runner
from cellflow.storage.hashing import hash_file
from cellflow.style_models import StyleModels
from cellflow.types import one_line

__all__ = ["Member", "check_members", "load_member"]

MOST_CHANNELS = 2
"""The channel to segment and the nuclear channel."""

_log = logging.getLogger(__name__)


@one_line
@dataclass(frozen=True)
class Member:
    """One network of an ensemble and how it wants its images.

    Attributes
    ----------
    name : str
        For messages and records.
    runner : Runner
        The network, ready to predict.
    chan, chan2 : int
        Channels as in Cellpose.
    diam_mean, diam_labels : float
        Diameter the network works at, and mean diameter of its training images, in pixels.
    hash : str
        Hash of the model file; empty for a network that is being trained.
    facts : dict
        What cellflow stored with the model file; empty for a file that Cellpose wrote.
    styles : StyleModels or None
        What this network's style vectors say of cell type and diameter, where that was fitted.
    only_type : str
        Cell type of the images that it joins for; empty for all.
    """

    name: str
    runner: Runner
    chan: int
    chan2: int
    diam_mean: float
    diam_labels: float
    hash: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    styles: StyleModels | None = None
    only_type: str = ""

    @property
    def net(self) -> Network:
        """The network."""
        return self.runner.net


def load_member(
    path: Path,
    name: str,
    machine: Machine,
    *,
    styles: StyleModels | None = None,
    only_type: str = "",
    channels: tuple[int, int] | None = None,
) -> Member:
    """Load a model file as a member of an ensemble.

    A file that Cellpose wrote says nothing of channels: `channels` are taken, else it counts as trained
    on grey images. `styles` and `only_type` are those of `Member`.

    Raises
    ------
    CheckpointError
        If the file is no model file, or its network takes fewer channels than are to be given.
    """
    net, facts = load_model_file(path)
    set_layout(net, choose_layout(machine.device))
    chan, chan2 = channels or (0, 0)
    chan2 = int(facts.get("chan2", chan2))
    if chan2 and net.channels < 2:
        raise CheckpointError(
            f"{path} takes one channel, found --chan2 {chan2}. Leave --chan2 out, or use another model.",
            path=path, expected=0, found=chan2,
        )  # fmt: skip
    if net.channels > MOST_CHANNELS:
        _log.warning(
            "%s takes %d channels; it gets those of --chan and --chan2, and the others are 0",
            path, net.channels,
        )  # fmt: skip
    runner, chan = machine.runner(net.to(machine.device)), int(facts.get("chan", chan))
    return Member(
        name, runner, chan, chan2, *net.diameters, hash_file(path), facts, styles, only_type
    )


def check_members(members: Sequence[Member]) -> None:
    """There is a member, none is there twice, and all want the same channels."""
    if not members:
        raise RunError("An ensemble needs at least one member, found none.")
    hashes = [(member.hash, member.only_type) for member in members if member.hash]
    if len(set(hashes)) < len(hashes):
        names = ", ".join(member.name for member in members)
        raise RunError(f"One and the same model is a member twice: {names}.")
    if len({(member.chan, member.chan2) for member in members}) > 1:
        found = ", ".join(f"{m.name}: {m.chan} {m.chan2}" for m in members)
        raise RunError(f"Members must have the same --chan and --chan2, found {found}.")

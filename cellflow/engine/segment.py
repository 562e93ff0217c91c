"""The only path from an image to labels: members, diameter policy, averaging, one mask step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellflow.config import MaskConfig
from cellflow.engine.stages import run_stages
from cellflow.errors import RunError
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.forward import Flows, image_to_flows
from cellflow.nn.precision import choose_layout
from cellflow.nn.unet import diameters_of, set_layout
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.numeric.normalize import normalize_percentile, select_channels
from cellflow.storage.hashing import hash_file

__all__ = ["Member", "Prediction", "Segmenter", "load_member", "make_labels"]

Key = TypeVar("Key")
Result = TypeVar("Result")

NITER_AT_30_PIXELS = 200
"""Steps that pixels follow the flow per 30 pixels of diameter, as in ``CellposeModel.eval``."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble and how it wants its images.

    Attributes
    ----------
    name : str
        For messages and records.
    net : torch.nn.Module
        In evaluation mode, on its device.
    chan, chan2 : int
        Channels as in Cellpose.
    diam_mean, diam_labels : float
        Diameter the network works at, and mean diameter of its training images, in pixels.
    hash : str
        Hash of the model file; empty for a network that is being trained.
    facts : dict
        What cellflow stored with the model file; empty for a file that Cellpose wrote.
    """

    name: str
    net: nn.Module
    chan: int
    chan2: int
    diam_mean: float
    diam_labels: float
    hash: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was predicted for one image, at its native size.

    Attributes
    ----------
    flow : (2, H, W) float32 ndarray
        Mean flow of the members, dY then dX, 5 times the unit flow.
    cellprob : (H, W) float32 ndarray
        Mean logit.
    disagreement : (H, W) float32 ndarray
        How far the members are apart at each pixel; 0 for a single member.
    labels : (H, W) int32 ndarray
        Label map, 0 background.
    diameter : float
        Diameter in pixels that was used, the mean over members.
    """

    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    labels: NDArray[np.int32]
    diameter: float


class _Means(NamedTuple):
    """What the members say of one image on average: a `Prediction` before its mask step."""

    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    disagreement: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Segmenter:
    """Members with everything needed to segment an image.

    Attributes
    ----------
    members : sequence of Member
        At least one; all with the same channels.
    mask : MaskConfig
        Thresholds of the mask step.
    amp : torch.dtype or None
        Type for mixed precision.
    batch_size : int
        Tiles per network call.
    diameter : float or None
        Cell diameter in pixels; None takes each member's mean training diameter, as Cellpose does.
    """

    members: Sequence[Member]
    mask: MaskConfig
    amp: torch.dtype | None = None
    batch_size: int = 8
    diameter: float | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise RunError("An ensemble needs at least one member, found none.")
        hashes = [member.hash for member in self.members if member.hash]
        if len(set(hashes)) < len(hashes):
            names = ", ".join(member.name for member in self.members)
            raise RunError(f"One and the same model is a member twice: {names}.")
        wanted = {(member.chan, member.chan2) for member in self.members}
        if len(wanted) > 1:
            found = ", ".join(f"{m.name}: {m.chan} {m.chan2}" for m in self.members)
            raise RunError(f"Members must have the same --chan and --chan2, found {found}.")

    def predict(self, image: NDArray[Any]) -> Prediction:
        """Segment one image of shape ``(H, W)`` or ``(H, W, C)``, any numeric type."""
        return self._label(self._average(self._normalize(image)))

    def stream(
        self,
        images: Iterable[tuple[Key, NDArray[Any]]],
        finish: Callable[[Key, Prediction], Result],
    ) -> Generator[Result, None, None]:
        """Segment images one after the other, with the mask step of one beside the network on the next.

        Parameters
        ----------
        images : iterable of (key, image)
            Images as `predict` takes them; reading them may be part of a generator. Taken as they are
            needed, in a thread, at most two beyond the one whose result is due.
        finish : callable
            Gets the key and the `Prediction` of every image, which is that of `predict` to the bit.
            Called in another thread, in the order of the images, after the mask step: scoring and
            writing here cost the network no time. Keep no part of the prediction that is not needed.

        Yields
        ------
        object
            What `finish` returned, in the order of the images.

        Raises
        ------
        BaseException
            What reading, segmenting or finishing an image raised, when its turn comes.

        Notes
        -----
        The network runs in the caller's thread. No thread stays when the generator ends, raises or is
        closed; use ``contextlib.closing`` where it may be left early.
        """

        def prepare(item: tuple[Key, NDArray[Any]]) -> tuple[Key, NDArray[np.float32]]:
            key, image = item
            return key, self._normalize(image)

        def compute(item: tuple[Key, NDArray[np.float32]]) -> tuple[Key, _Means]:
            key, normal = item
            return key, self._average(normal)

        def label_and_finish(item: tuple[Key, _Means]) -> Result:
            key, means = item
            return finish(key, self._label(means))

        return run_stages(images, prepare, compute, label_and_finish)

    def _normalize(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """The channels the members want, ``(2, H, W)``."""
        member = self.members[0]
        return normalize_percentile(select_channels(image, member.chan, member.chan2))

    def _average(self, normal: NDArray[np.float32]) -> _Means:
        """The networks' part."""
        flows = self._flows(normal)
        return _Means(*average_flows((item.flow, item.cellprob) for item in flows))

    def _label(self, means: _Means) -> Prediction:
        """The mask step."""
        diameter = float(np.mean([self._diameter(member) for member in self.members]))
        labels = make_labels(means.flow, means.cellprob, diameter, self.mask)
        return Prediction(*means, labels, diameter)

    def _flows(self, normal: NDArray[np.float32]) -> Iterator[Flows]:
        """Flows of one member after the other, so that memory does not grow with their number."""
        for member in self.members:
            rescale = member.diam_mean / self._diameter(member)
            yield image_to_flows(
                member.net, normal, rescale=rescale, batch_size=self.batch_size, amp=self.amp
            )

    def _diameter(self, member: Member) -> float:
        return member.diam_labels if self.diameter is None else self.diameter


def make_labels(
    flow: NDArray[Any], cellprob: NDArray[Any], diameter: float, mask: MaskConfig
) -> NDArray[np.int32]:
    """The mask step with a config's thresholds, for live or stored flows.

    Parameters
    ----------
    flow : (2, H, W) ndarray
        5 times the unit flow.
    cellprob : (H, W) ndarray
        Logit.
    diameter : float
        Diameter in pixels; sets the number of steps unless the config does.
    mask : MaskConfig
        Thresholds.
    """
    return flows_to_labels(
        flow,
        cellprob,
        cellprob_threshold=mask.cellprob_threshold,
        flow_threshold=mask.flow_threshold,
        min_size=mask.min_size,
        niter=mask.niter or max(1, int(NITER_AT_30_PIXELS * diameter / 30)),
        check_scale=False,  # a network at the start of its training puts out short flows
    )


def load_member(path: Path, name: str, device: torch.device) -> Member:
    """Load a model file as a member of an ensemble.

    A file that Cellpose wrote says nothing of channels; it is taken as trained on grey images.
    """
    net, facts = load_model_file(path)
    set_layout(net, choose_layout(device))
    diam_mean, diam_labels = diameters_of(net)
    return Member(
        name=name,
        net=net.to(device),
        chan=int(facts.get("chan", 0)),
        chan2=int(facts.get("chan2", 0)),
        diam_mean=diam_mean,
        diam_labels=diam_labels,
        hash=hash_file(path),
        facts=facts,
    )

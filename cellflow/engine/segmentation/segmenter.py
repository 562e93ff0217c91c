"""The only path from an image to labels: members, diameter policy, averaging, one mask step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.config.shared import Policy
from cellflow.engine.runtime.pipeline import run_stages
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.member import Member, check_members
from cellflow.engine.segmentation.recognition import (
    Recognition,
    choose_diameter,
    combine_styles,
    joining_members,
    recognize,
    recognize_large,
)
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.settled_diameter import PartMeans, Seen, settle, settle_whole
from cellflow.errors import RunError
from cellflow.nn.forward import image_to_flows
from cellflow.nn.part_forward import KnownTiles, part_to_flows
from cellflow.numeric.averaging import Variant, average_flows
from cellflow.numeric.normalize import AS_TRAINED, Normalization, network_channels, select_channels
from cellflow.numeric.tta import VIEWS, Axes, flip_image, unflip_flow
from cellflow.types import Box, one_line

__all__ = ["FLIPS", "Ready", "Segmenter"]

Key = TypeVar("Key")
Result = TypeVar("Result")
Fields = tuple[NDArray[Any], NDArray[Any]]
ForeignFlows = Callable[[Any, Fields], Fields]
ReadPart = Callable[[Box], NDArray[np.float32]]
Shape = tuple[int, int]

FLIPS: tuple[Axes, ...] = VIEWS
"""The views of full test-time flips."""


class Ready(NamedTuple):
    """An image as the network wants it, and its segmented channel in native units."""

    normal: NDArray[np.float32]
    intensity: NDArray[np.float32]


class MemberView(NamedTuple):
    """How a member, by its place, sees an image; `is_plain` at its default scale, unflipped."""

    place: int
    member: Member
    rescale: float
    axes: Axes
    is_plain: bool


class Means(NamedTuple):
    """What the members say of one image on average: a `Prediction` before its mask step.

    `style` is the style vector of the first member's plain view, empty where it has none.
    """

    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    diameter: float
    intensity: NDArray[np.float32]
    cell_type: str
    recognition: Recognition
    style: NDArray[np.float32]


@one_line
@dataclass(frozen=True, eq=False)
class Segmenter:
    """Members with everything needed to segment an image.

    Attributes
    ----------
    members : sequence of Member
        At least one; all with the same channels.
    mask : MaskConfig
        Thresholds of the mask step.
    batch_size : int
        Tiles per network call.
    diameter : float or None
        Cell diameter in pixels; None leaves it to the policy.
    policy : {"dataset", "type", "image"}
        Where diameters come from: each member's mean training diameter, as Cellpose does; the mean of
        the image's cell type, or the estimate where that is far from it or the type unsure; or an estimate
        from the image's style, see `choose_diameter`. What the style models cannot tell falls back to the
        first.
    per_type : mapping of str to MaskConfig
        Thresholds of cell types; `mask` is for images of another or of an unsure type.
    cell_type : str
        Cell type of all images; empty leaves it to the style models.
    flips : sequence of {"", "y", "x", "yx"}
        Views that every member sees; `FLIPS` are all of them.
    scales : sequence of float
        Factors on the scale at which every member sees every view.
    augment : bool
        Whether tiles overlap by half and every other one is flipped, as Cellpose's ``--augment``.
    weights : sequence of float or None
        Weight of each member, then of each foreign flow; equal by default.
    average : {"plain", "cellprob", "direction"}
        How flows are averaged, see `average_flows`.
    rounds : int
        Times that an image may be predicted again at the diameter of the cells found, see `settle`; not where a
        diameter is given.
    normalization : Normalization
        How images are brought to the scale of the networks.
    foreign : sequence of callable
        Flows of other origin that join the average: each gets an image's key and the fields of the first
        member to compare with, and returns ``(flow, cellprob)`` at native size.
    """

    members: Sequence[Member]
    mask: MaskConfig
    batch_size: int = 8
    diameter: float | None = None
    policy: Policy = "dataset"
    per_type: Mapping[str, MaskConfig] = field(default_factory=dict)
    cell_type: str = ""
    flips: Sequence[Axes] = ("",)
    scales: Sequence[float] = (1.0,)
    augment: bool = False
    weights: Sequence[float] | None = None
    average: Variant = "plain"
    rounds: int = 0
    normalization: Normalization = AS_TRAINED
    foreign: Sequence[ForeignFlows] = ()

    def __post_init__(self) -> None:
        check_members(self.members)
        count = len(self.members) + len(self.foreign)
        if self.weights is not None and len(self.weights) != count:
            raise RunError(
                f"Weights: expected one for each of {count} members, found {len(self.weights)}."
            )

    def predict(self, image: NDArray[Any], key: Any = None) -> Prediction:
        """Segment one image of shape ``(H, W)`` or ``(H, W, C)``, any numeric type.

        `key` is what foreign flows are asked for.
        """
        return self.label(self.means(image, key))

    def means(self, image: NDArray[Any], key: Any = None) -> Means:
        """What `label` makes a prediction from: the networks' part of `predict`."""
        return self._average(key, self.ready(image))

    def stream(
        self,
        images: Iterable[tuple[Key, NDArray[Any] | Ready]],
        finish: Callable[[Key, Prediction], Result],
    ) -> Generator[Result, None, None]:
        """Segment images one after the other, with the mask step of one beside the network on the next.

        Parameters
        ----------
        images : iterable of (key, image)
            Images as `predict` takes them, or what `ready` made of them; reading them may be part of a
            generator. Taken as they are needed, in a thread, at most two beyond the one whose result is
            due.
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

        def prepare(item: tuple[Key, NDArray[Any] | Ready]) -> tuple[Key, Ready]:
            key, image = item
            return key, image if isinstance(image, Ready) else self.ready(image)

        def compute(item: tuple[Key, Ready]) -> tuple[Key, Means]:
            return item[0], self._average(*item)

        def label_and_finish(item: tuple[Key, Means]) -> Result:
            return finish(item[0], self.label(item[1]))

        return run_stages(images, prepare, compute, label_and_finish)

    def member_flows(
        self, image: NDArray[Any], key: Any = None
    ) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], float, str]:
        """What `predict` averages: flow and logit of every member and view, diameter, and cell type."""
        normal = self.ready(image).normal
        known = self._settled(key, normal, self._recognize(normal))[0]
        joining = joining_members(self.members, self._type_of(known))
        flows = list(self._flows(normal, key, joining, known, {}))
        diameters = [self._diameter(member, known) for member in joining.values()]
        return flows, float(np.mean(diameters)), self._type_of(known)

    def ready(self, image: NDArray[Any]) -> Ready:
        """The channels the members want, normalised."""
        member = self.members[0]
        normal = network_channels(image, member.chan, member.chan2, self.normalization)
        return Ready(normal, select_channels(image, member.chan, member.chan2)[0].copy())

    def _average(self, key: Any, item: Ready) -> Means:
        """The networks' part."""
        first = self._recognize(item.normal) if self._needs_styles_first else None
        known, seen = self._settled(key, item.normal, first)
        means, styles = seen or self._seen(key, item.normal, known)
        joining = joining_members(self.members, self._type_of(known))
        if known is None:
            known = combine_styles(self.members, styles)
        cell_type, diameter, _ = self.settings_for(known)
        style = styles.get(next(iter(joining)), np.zeros(0, np.float32))
        return Means(*means, diameter, item.intensity, cell_type, known, style)

    def _seen(self, key: Any, normal: NDArray[np.float32], known: Recognition | None) -> Seen:
        """What the members say on average of a whole image, and the styles of their plain views."""
        joining = joining_members(self.members, self._type_of(known))
        styles: dict[int, NDArray[np.float32]] = {}
        flows = self._flows(normal, key, joining, known, styles)
        return average_flows(flows, self._view_weights(joining), variant=self.average), styles

    def _settled(
        self, key: Any, normal: NDArray[np.float32], known: Recognition | None
    ) -> tuple[Recognition | None, Seen | None]:
        """What is known of an image once its diameter rests, and what was seen with that, if it was."""
        if known is None or not self._settles:
            return known, None
        return settle_whole(self, partial(self._seen, key, normal), normal, known)

    @property
    def _settles(self) -> bool:
        return self.rounds > 0 and self.diameter is None

    def label(self, means: Means) -> Prediction:
        """The mask step of `predict`."""
        mask = self.per_type.get(means.cell_type, self.mask)
        labels = make_labels(means.flow, means.cellprob, means.diameter, mask)
        return Prediction(
            means.flow, means.cellprob, means.disagreement, labels, means.diameter,
            means.intensity, means.cell_type, means.recognition,
            channels=(self.members[0].chan, self.members[0].chan2),
        )  # fmt: skip

    @property
    def _needs_styles_first(self) -> bool:
        """Whether styles are needed before the flows; else they come with the plain view at no cost."""
        plain = self.diameter is None and self.policy == "dataset"
        plain &= "" in self.flips and 1.0 in self.scales and not self.augment and not self._settles
        return not plain or any(member.only_type for member in self.members)

    def _recognize(self, normal: NDArray[np.float32]) -> Recognition:
        return recognize(self.members, normal, batch_size=self.batch_size)

    def _type_of(self, known: Recognition | None) -> str:
        return self.cell_type or (known.cell_type if known is not None else "")

    def _view_weights(self, joining: Mapping[int, Member]) -> list[float] | None:
        """A weight for every flow of `_flows`: that of the member, shared by its views."""
        given = self.weights or [1.0] * (len(self.members) + len(self.foreign))
        views = len(self.flips) * len(self.scales)
        shared = [given[place] / views for place in joining for _ in range(views)]
        return shared + list(given[len(self.members) :])

    def _flows(
        self,
        normal: NDArray[np.float32],
        key: Any,
        joining: Mapping[int, Member],
        known: Recognition | None,
        styles: dict[int, NDArray[np.float32]],
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Flows of one member and view after the other, so that memory does not grow with their number.

        Puts the style of each member's plain view at its default scale into `styles`.
        """
        reference: Fields | None = None
        for view in self._views(joining, known):
            flows = image_to_flows(
                view.member.runner, flip_image(normal, view.axes), rescale=view.rescale,
                batch_size=self.batch_size, augment=self.augment,
            )  # fmt: skip
            # read only where this is the default scale
            if view.is_plain and flows.style is not None:
                styles[view.place] = flows.style
            fields = flows.flow, flows.cellprob
            if view.axes:
                fields = unflip_flow(*fields, view.axes)
            if reference is None and self.foreign:
                reference = fields
            yield fields
        if reference is not None:
            yield from (flows_of(key, reference) for flows_of in self.foreign)

    def _views(
        self, joining: Mapping[int, Member], known: Recognition | None
    ) -> Iterator[MemberView]:
        """How every member sees the image, in the order of the averaged flows."""
        for place, member in joining.items():
            rescale = member.diam_mean / self._diameter(member, known)
            for scale in self.scales:
                for axes in self.flips:
                    plain = not axes and scale == 1.0
                    yield MemberView(place, member, rescale * scale, axes, plain)

    def part_means(
        self,
        read: ReadPart,
        shape: Shape,
        box: Box,
        known: Recognition,
        *,
        tiles: dict[Any, KnownTiles] | None = None,
        empty: float = 0.0,
    ) -> PartMeans:
        """What the members say on average of a part of an image that is too large to be held.

        Parameters
        ----------
        read : callable
            Gives the normalised pixels ``(C, h, w)`` of a box of the image.
        shape : (int, int)
            ``(H, W)`` of the whole image.
        box : Box
            The part.
        known : Recognition
            What is known of the whole image.
        tiles : dict, optional
            Filled with what each view has made of constant tiles, for the other parts of the image.
        empty : float
            Tiles whose normalised values differ by no more than this hold no cell.

        Returns
        -------
        flow, cellprob, disagreement : float32 ndarray
            Those of the whole image, cut out, to the bit. Foreign flows are not asked for.
        """
        joining = joining_members(self.members, self._type_of(known))
        found = {} if tiles is None else tiles
        flows = (
            part_to_flows(
                view.member.runner, read, shape, box, rescale=view.rescale, axes=view.axes,
                batch_size=self.batch_size, augment=self.augment, empty=empty,
                known=found.setdefault((view.place, view.rescale, view.axes), KnownTiles()),
            )
            for view in self._views(joining, known)
        )  # fmt: skip
        return average_flows(flows, self._view_weights(joining), variant=self.average)

    def recognize_large(self, read: ReadPart, shape: Shape) -> Recognition:
        """What is known of an image of `shape` that is read by parts, for `part_means`."""
        known = recognize_large(self.members, read, shape, batch_size=self.batch_size)
        means_of = partial(self.part_means, read, shape)
        return settle(self, means_of, shape, known) if self._settles else known

    def settings_for(self, known: Recognition) -> tuple[str, float, MaskConfig]:
        """Cell type, mean diameter in pixels and thresholds for an image of which this is known."""
        cell_type = self._type_of(known)
        joining = joining_members(self.members, cell_type)
        diameter = float(np.mean([self._diameter(member, known) for member in joining.values()]))
        return cell_type, diameter, self.per_type.get(cell_type, self.mask)

    def _diameter(self, member: Member, known: Recognition | None) -> float:
        """Diameter for a member, by what was given, the policy, and what is known of the image."""
        if self.diameter is not None:
            return self.diameter
        if known is not None and known.measured:
            return known.measured
        return choose_diameter(
            member, self.members, self.policy,
            cell_type=self._type_of(known), estimate=known.diameter if known is not None else 0.0,
            given=bool(self.cell_type),
        )  # fmt: skip

"""Cell type and diameter of an image: what the members' style models see, and what the policy makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.config.shared import Policy
from cellflow.engine.segmentation.member import Member
from cellflow.nn.forward import image_to_style
from cellflow.nn.part_forward import sampled_style
from cellflow.style_models import StyleModels, average_probabilities, choose_type
from cellflow.types import Box

__all__ = [
    "UNKNOWN",
    "Recognition",
    "choose_diameter",
    "combine_styles",
    "joining_members",
    "recognize",
    "recognize_large",
]


class Recognition(NamedTuple):
    """What the members' style vectors say of an image.

    `probabilities` maps cell types to their mean probability over the members; `cell_type` is the most
    probable one, empty where that is unsure; `diameter` is the geometric mean of the members' estimates
    in pixels, 0 where there is none. `measured` is the diameter of the cells found in the image, where that was
    asked for (`settle`) and counts instead; else 0.
    """

    cell_type: str
    probabilities: dict[str, float]
    diameter: float
    measured: float = 0.0


UNKNOWN = Recognition("", {}, 0.0)


def recognize(
    members: Sequence[Member], normal: NDArray[np.float32], *, batch_size: int
) -> Recognition:
    """What the members' styles say of a normalised image; only the encoder of each network is run."""
    style_of = partial(image_to_style, image=normal, batch_size=batch_size)
    return combine_styles(members, _styles(members, style_of))


def recognize_large(
    members: Sequence[Member],
    read: Callable[[Box], NDArray[np.float32]],
    shape: tuple[int, int],
    *,
    batch_size: int,
) -> Recognition:
    """What the members' styles say of an image of `shape` that is read by parts, from a sample of its tiles."""
    style_of = partial(sampled_style, read=read, shape=shape, batch_size=batch_size)
    return combine_styles(members, _styles(members, style_of))


def _styles(
    members: Sequence[Member], style_of: Callable[..., NDArray[np.float32]]
) -> dict[int, NDArray[np.float32]]:
    """Styles at their default scale of the members for all types that have style models, by place."""
    return {
        place: style_of(member.runner, rescale=member.diam_mean / member.diam_labels)
        for place, member in enumerate(members)
        if member.styles is not None and not member.only_type
    }


def combine_styles(
    members: Sequence[Member], styles: Mapping[int, NDArray[np.float32]]
) -> Recognition:
    """Mean probabilities and mean log diameter over the members, by place, that have style models.

    Members for one cell type have no say: what the others see decides whether they join.
    """
    votes, logs = [], []
    for place, style in styles.items():
        models = members[place].styles
        if models is None or members[place].only_type:
            continue
        logs.append(np.log(models.diameter.diameters(style[np.newaxis])[0]))
        if models.cell_type is not None:
            votes.append((models.cell_type, models.cell_type.probabilities(style[np.newaxis])[0]))
    if not logs:
        return UNKNOWN
    probabilities = average_probabilities(votes) if votes else {}
    return Recognition(choose_type(probabilities), probabilities, float(np.exp(np.mean(logs))))


def joining_members(members: Sequence[Member], cell_type: str) -> dict[int, Member]:
    """The members that an image of a cell type is for, by their place; all where it is for none."""
    chosen = {
        place: member for place, member in enumerate(members) if member.only_type in ("", cell_type)
    }
    return chosen or dict(enumerate(members))


def choose_diameter(
    member: Member,
    members: Sequence[Member],
    policy: Policy,
    *,
    cell_type: str,
    estimate: float,
    given: bool = False,
) -> float:
    """Diameter in pixels at which a member sees an image, by the policy and what is known of the image.

    Parameters
    ----------
    member, members
        The member, and all of them.
    policy : {"dataset", "type", "image"}
        Where diameters come from; what is not known falls back to the first.
    cell_type : str
        Type of the image's cells, empty where it is not known.
    estimate : float
        Diameter that the style models see in the image; 0 where they see none.
    given : bool
        Whether people said the type. One that the styles tell may be wrong: where the estimate is farther from
        the type's diameter than those of images that no network had seen, the estimate counts; and where the
        type is unsure.
    """
    diameter = 0.0
    if policy == "type":
        diameter = _type_diameter(members, cell_type)
        if estimate and diameter and not given:
            factor = _type_factor(members, cell_type)
            if max(estimate / diameter, diameter / estimate) > factor:
                diameter = estimate
        diameter = diameter or estimate
    elif policy == "image":
        diameter = estimate
    return diameter or member.diam_labels


def _knowing(members: Sequence[Member], cell_type: str) -> list[StyleModels]:
    """Style models of the members that know a cell type."""
    models = [member.styles for member in members if member.styles is not None]
    return [item for item in models if cell_type in item.type_diameters]


def _type_diameter(members: Sequence[Member], cell_type: str) -> float:
    """Mean diameter of a cell type in the training images of the members that know it; else 0."""
    diameters = [item.type_diameters[cell_type] for item in _knowing(members, cell_type)]
    return float(np.mean(diameters)) if diameters else 0.0


def _type_factor(members: Sequence[Member], cell_type: str) -> float:
    """How far an estimate may lie from the diameter of a type; infinite where no member has looked at that."""
    factors = [item.type_factor for item in _knowing(members, cell_type)]
    return max((factor for factor in factors if factor is not None), default=math.inf)

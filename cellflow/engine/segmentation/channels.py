"""Channels by their names, and channels that images do not have: grey ones are taken as they are, as in Cellpose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from cellflow.errors import ConfigError
from cellflow.storage.sizes import few_text, plural

__all__ = ["channel_numbers", "needs_colour", "warn_of_grey", "warn_of_mean"]

_log = logging.getLogger(__name__)

_COLOURS = 3


def channel_numbers(
    chan: int | str, chan2: int | str, names: Callable[[], Mapping[str, Sequence[str]]]
) -> tuple[int, int]:
    """Numbers of channels that may be given by name.

    Parameters
    ----------
    chan, chan2 : int or str
        Numbers as in Cellpose, or names; capitals do not count where a name fits without them. A number
        goes before a channel whose name is that number.
    names : callable
        Gives the names of all channels of every image, by id; asked only where they are needed.

    Raises
    ------
    ConfigError
        If a channel of that name is not at the same place in every image, with what is where.
    """
    numbers = [int(value) if str(value).isdecimal() else value for value in (chan, chan2)]
    known = names() if any(isinstance(value, str) for value in numbers) else {}
    found = [
        _number(flag, value, known) if isinstance(value, str) else value
        for flag, value in zip(("--chan", "--chan2"), numbers, strict=True)
    ]
    return found[0], found[1]


def _number(flag: str, name: str, known: Mapping[str, Sequence[str]]) -> int:
    """The place of a channel, counted from 1, where it is the same in all images."""
    places = {image: _places(name, names) for image, names in known.items()}
    common = set(places.values())
    if len(common) == 1 and len(numbers := common.pop()) == 1:
        _log.info("%s %s: channel %d of %s", flag, name, numbers[0], plural(len(known), "image"))
        return numbers[0]
    kinds: dict[tuple[str, ...], list[str]] = {}
    for image, names in known.items():
        kinds.setdefault(tuple(names), []).append(image)
    lines = "\n".join(
        f"  - {_listed(names)}: {plural(len(images), 'image')} ({few_text(images)})"
        for names, images in kinds.items()
    )
    raise ConfigError(
        f"{flag} {name}: expected one channel of this name, at the same place in every image; the channels are "
        f"called\n{lines}\nSay its number, {flag} 1 for the first, or take images apart whose channels lie "
        "differently.",
        expected=name, found=sorted(kinds),
    )  # fmt: skip


def _places(name: str, names: Sequence[str]) -> tuple[int, ...]:
    """Places of a name among others, counted from 1; those that differ in capitals where none is exact."""
    exact = tuple(place for place, other in enumerate(names, 1) if other == name)
    small = name.casefold()
    return exact or tuple(i for i, other in enumerate(names, 1) if other.casefold() == small)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{i} {name or '-'}" for i, name in enumerate(names, 1)) or "not known"


def needs_colour(chan: int, chan2: int) -> bool:
    """Whether an image of one channel lacks something; its only channel is the mean and the first."""
    return chan > 1 or chan2 > 0


def warn_of_grey(channels: Mapping[str, int], chan: int, chan2: int) -> None:
    """Warn of images of one channel where others are asked for, in one line.

    Nothing is refused: a model that was trained on colours can be used and trained further on grey
    images.

    Parameters
    ----------
    channels : mapping of str to int
        Number of channels of each image, by id.
    chan, chan2 : int
        Channels as in Cellpose.
    """
    if not needs_colour(chan, chan2):
        return
    grey = [str(name) for name, count in channels.items() if count == 1]
    if grey:
        second = f", and --chan2 {chan2} is empty" if chan2 else ""
        _log.warning(
            "%d of %s have one channel (%s): it is taken for --chan %d%s.",
            len(grey), plural(len(channels), "image"), few_text(grey), chan, second,
        )  # fmt: skip


def warn_of_mean(channels: Mapping[str, int], chan: int) -> None:
    """Warn of images of more channels than a colour picture has, of which the mean is taken."""
    many = [str(name) for name, count in channels.items() if count > _COLOURS]
    if many and chan == 0:
        _log.warning(
            "%s of %s have more than %d channels (%s), and --chan 0 takes the mean of them all; --chan NUMBER or "
            "--chan NAME takes one.",
            len(many), plural(len(channels), "image"), _COLOURS, few_text(many),
        )  # fmt: skip

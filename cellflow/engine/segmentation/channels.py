"""Channels that images do not have: grey ones are taken as they are, as in Cellpose, and that is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from cellflow.storage.sizes import few_text, plural

__all__ = ["needs_colour", "warn_of_grey"]

_log = logging.getLogger(__name__)


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

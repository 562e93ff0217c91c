"""Images that are there more than once, as they are or in another form."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.io.dataset import NEAR_COPY
from cellflow.numeric.near_copies import first_of_copies
from cellflow.storage.sizes import few_text, plural

__all__ = ["Look", "other_forms", "warn_of_twins"]

_log = logging.getLogger(__name__)


class Look(NamedTuple):
    """By what an image is known again, as it is and in another form."""

    pixel_hash: str
    fingerprint: NDArray[np.float32]


def other_forms(seen: Mapping[str, Look]) -> dict[str, str]:
    """Images that are another form of an earlier one, with the id of the first."""
    names, looks = list(seen), list(seen.values())
    first = first_of_copies([look.fingerprint for look in looks])
    # images of the same pixels alone are no other form
    hashes: dict[int, set[str]] = {}
    for at, look in zip(first.tolist(), looks, strict=True):
        hashes.setdefault(at, set()).add(look.pixel_hash)
    return {
        name: names[at]
        for name, at in zip(names, first.tolist(), strict=True)
        if names[at] != name and len(hashes[at]) > 1
    }


def warn_of_twins(images: pd.DataFrame) -> None:
    """Warn of images with the same pixels, and of other forms of one; `cellflow folds` keeps them together."""
    for _, group in images.groupby("pixel_hash"):
        if len(group) > 1:
            _log.warning(
                "The same image under %d names: %s. It counts more than once in training and "
                "scores; `cellflow folds` keeps its copies in one fold.",
                *(len(group), ", ".join(group.index)),
            )
    if NEAR_COPY not in images:
        return
    pixels, firsts = images["pixel_hash"].to_dict(), images[NEAR_COPY].to_dict()
    pairs = [(name, first) for name, first in firsts.items() if first]
    forms = [f"{name} of {first}" for name, first in pairs if pixels[name] != pixels[first]]
    _log.warning(
        "%s in another form (turned, mirrored, rescaled, brightened): %s. `cellflow folds` keeps them in one "
        "fold; `cellflow verify` says more.",
        *(plural(len(forms), "image"), few_text(forms)),
    )

"""Names of files and the ids in them: what stands around an id (``_masks``, ``mask_*``), and which id a text means."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from pathlib import PurePath, PureWindowsPath
from unicodedata import normalize

from cellflow.io.images import IMAGE_SUFFIXES

__all__ = [
    "id_of",
    "image_filter",
    "image_id_of",
    "kind_of",
    "known_map_name",
    "known_name",
    "longer",
    "mask_filters",
    "match_id",
    "name_of",
    "stem_of",
]

OME = ".ome"
"""What an OME-TIFF or OME-Zarr may have before its ending, and what then is a part of an image's id."""

_WORDS = "man_seg|ground_?truth|gt|masks?|labels?|seg|segmentations?|annotations?|annot|instances?"
_APART = r"[ _.\-]"
_BEFORE = re.compile(rf"(?:{_WORDS})(?:{_APART}+|(?=\d))(?=.)", re.IGNORECASE)
_AFTER = re.compile(rf"(?<=.)(?:{_APART}+|(?<=\d))(?:{_WORDS})\Z", re.IGNORECASE)


def stem_of(path: PurePath) -> str:
    """The name of a file without its ending, and without the ``.ome`` before it, which filters do not know."""
    return path.stem.removesuffix(OME)


def image_id_of(path: PurePath, name_filter: str) -> str | None:
    """The id of an image by its file; None where the name is not of this kind."""
    return id_of(stem_of(path), name_filter) if name_filter else path.stem


def id_of(stem: str, name_filter: str) -> str | None:
    """The id in a name without the ending of its file; None where the name is not of this kind."""
    start, end = _parts(name_filter)
    fits = stem.startswith(start) and stem.endswith(end) and len(stem) >= len(start) + len(end)
    return stem[len(start) : len(stem) - len(end)] if fits else None


def name_of(image_id: str, name_filter: str) -> str:
    """The name of this kind for an id."""
    start, end = _parts(name_filter)
    return start + image_id + end


def kind_of(name_filter: str) -> str:
    """What such names look like, for people: NAME_masks, mask_NAME."""
    return name_of("NAME", name_filter)


def longer(name_filter: str, before: str = "", after: str = "") -> str:
    """A filter of names that have this besides, right before or behind the id."""
    start, end = _parts(name_filter)
    start, end = start + before, after + end
    return f"{start}*{end}" if start else end


def _parts(name_filter: str) -> tuple[str, str]:
    before, star, after = name_filter.partition("*")
    return (before, after) if star else ("", before)


def mask_filters(stems: Iterable[str]) -> list[str]:
    """The kinds of names that a word for label maps tells: ``label_*`` for label_01, ``_GT`` for 01_GT."""
    found = dict[str, None]()
    for stem in stems:
        if before := _BEFORE.match(stem):
            found[f"{before.group()}*"] = None
        if after := _AFTER.search(stem):
            found[after.group()] = None
    return list(found)


def image_filter(stems: Iterable[str], ids: Iterable[str]) -> str | None:
    """The kind of names that just these ids have among images; None where there is none.

    Examples
    --------
    >>> image_filter(["img_01", "img_02"], ["02", "01"])
    'img_*'
    >>> image_filter(["a_raw", "b_raw"], ["a", "b"])
    '_raw'
    """
    names, known = sorted(stems), set(ids)
    if "" in known or not names:
        return None
    for image_id in sorted(known):
        for at in (match.start() for match in re.finditer(re.escape(image_id), names[0])):
            start, end = names[0][:at], names[0][at + len(image_id) :]
            apart = all(_apart(start, name) and _apart(name, end) for name in known)
            if apart and sorted(start + name + end for name in known) == names:
                return f"{start}*{end}" if start else end
    return None


def _apart(one: str, other: str) -> bool:
    """Whether two neighbours in a name are no one word and no one number."""
    sides = one[-1:] + other[:1]
    return not (sides.isalpha() or sides.isdigit()) or len(sides) < 2


def match_id(text: str, known: Container[str]) -> str | None:
    """Find an id of a table among the images' ids, in either form of Unicode.

    `NAME.png` is taken for `NAME`, and where there is none, `NAME` for `NAME.ome` and the reverse.
    """
    path = PureWindowsPath(text)  # which takes the separators of every system
    is_file = path.suffix.lower() in (*IMAGE_SUFFIXES, ".zarr")
    names = [text, *([path.stem] if is_file else []), text + OME, text.removesuffix(OME)]
    return next(filter(None, (known_name(name, known) for name in names)), None)


def known_name(name: str, known: Container[str]) -> str | None:
    """The one of `known` that is `name`, written as it is or with accents as Excel (NFC) or macOS (NFD) has them."""
    forms = name, normalize("NFC", name), normalize("NFD", name)
    return next((form for form in forms if form in known), None)


def known_map_name(name: str, known: Container[str]) -> str:
    """The id of a label map, which is that of an image among `known` if there is one: NAME for ``NAME.ome.tif`` too."""
    return known_name(name, known) or known_name(name + OME, known) or name

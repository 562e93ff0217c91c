"""Which masks belong to which images of the truth, by their names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cellflow.errors import DataError
from cellflow.io.file_names import id_of, longer, mask_filters, match_id
from cellflow.io.source import Source
from cellflow.storage.sizes import few_text, flag_text

__all__ = ["Names", "check_names", "match_names"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Names:
    """How the images of a prediction match those of the truth.

    Attributes
    ----------
    ids : dict of str to str
        From an id of the truth to what the prediction calls it.
    only_predicted, only_true : tuple of str
        Images that only one side has.
    """

    ids: dict[str, str]
    only_predicted: tuple[str, ...]
    only_true: tuple[str, ...]


def match_names(masks: Source, truth: Source) -> Names:
    """Match ids; ``NAME.png`` in a table is NAME.

    Where no id fits, words for label maps before or behind it are taken off, on each side its own (``mask000`` and
    ``man_seg000``, as the Cell Tracking Challenge has them), if that gives all images of the truth a partner.

    Raises
    ------
    DataError
        If two of the prediction are one image.
    """
    ids: dict[str, str] = {}
    known, extra = set(truth.images), []
    for own in masks.images:
        name = match_id(own, known)
        if name is None:
            extra.append(own)
        elif name in ids:
            raise DataError(
                f"{masks.path}: {ids[name]!r} and {own!r} are the same image. Remove one."
            )
        else:
            ids[name] = own
    if not ids and (paired := _without_words(masks.images, truth.images)):
        text = "No name of %s is one of %s; taken are pairs with other words for label maps, such as %s and %s."
        first = next(iter(paired))
        _log.info(text, masks.path, truth.path, paired[first], first)
        ids, extra = paired, [own for own in masks.images if own not in paired.values()]
    missing = tuple(name for name in truth.images if name not in ids)
    return Names(ids, tuple(extra), missing)


def _without_words(masks: Iterable[str], truth: Iterable[str]) -> dict[str, str]:
    """From each name of the truth to that of the masks which is left the same without its words; else nothing."""
    for there in _word_free(truth):
        for found in _word_free(masks):
            if there and there.keys() <= found.keys():
                return {name: found[left] for left, name in there.items()}
    return {}


def _word_free(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Names by what is left of them, as they are and without each word that all of them have."""
    known = list(names)
    for name_filter in ("", *mask_filters(known)):
        left = {id_of(name, name_filter): name for name in known}
        if None not in left and len(left) == len(known):
            yield {str(rest): name for rest, name in left.items()}


def check_names(masks: Source, truth: Source, names: Names, *, subset: bool) -> None:
    """Refuse a prediction that lacks images of the truth, or has none of them.

    Raises
    ------
    DataError
        With names of both sides, and what the endings have to do with it where that can be seen.
    """
    if names.ids and (subset or not names.only_true):
        return
    hint = _ending_hint(masks, truth, names)
    if not names.ids:
        raise DataError(
            f"{masks.path} and {truth.path} have no image in common; the truth has "
            f"{few_text(names.only_true)}, the masks {few_text(names.only_predicted)}. "
            + (hint or "File names without their ending must be the ids of the truth.")
        )
    others = ""
    if names.only_predicted:
        others = (
            f", but masks for {len(names.only_predicted)} others ({few_text(names.only_predicted)})"
        )
    raise DataError(
        f"{masks.path}: no masks for {len(names.only_true)} of the {len(truth.images)} images of "
        f"{truth.path} ({few_text(names.only_true)}){others}. {hint}{' ' * bool(hint)}Add them (an image "
        "without cells needs a label map of zeros, or a row with an empty value), or add --subset to "
        "score only those there are."
    )


def _ending_hint(masks: Source, truth: Source, names: Names) -> str:
    """What to type where the names of one side are those of the other with something more before or behind them."""
    sides = (
        ("the masks", masks, names.only_predicted, names.only_true),
        ("the truth", truth, names.only_true, names.only_predicted),
    )
    for side, source, many, few in sides:
        ending, start = _common_ending(many, few), _common_start(many, few)
        text = f"The names of {side}"
        if ending:
            text += f" end in {ending!r} beyond those of the other side"
            return _advice(text, longer(source.ending, after=ending), source.kind)
        if start:
            text += f" have {start!r} before those of the other side"
            return _advice(text, longer(source.ending, before=start), source.kind)
    return ""


def _advice(text: str, name_filter: str, kind: str) -> str:
    if kind.startswith("label maps"):
        return f"{text}: add {flag_text('--mask_filter', name_filter)}"
    return f"{text}: write the same names on both sides."


def _common_start(many: Iterable[str], few: Iterable[str]) -> str:
    """What most of some names have before others; empty where there is none."""
    return _common_ending([name[::-1] for name in many], [name[::-1] for name in few])[::-1]


def _common_ending(many: Iterable[str], few: Iterable[str]) -> str:
    """Ending that most of some names have beyond others; empty where there is none."""
    names, known = list(many), set(few)
    found: Counter[str] = Counter()
    for name in names:
        for length in range(len(name) - 1, 0, -1):
            if name[:length] in known:
                found[name[length:]] += 1
                break
    ending, count = found.most_common(1)[0] if found else ("", 0)
    return ending if 2 * count > min(len(names), len(known)) else ""

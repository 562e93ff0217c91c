"""Settings as their help shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

__all__ = ["with_flowing_texts"]

_WORDS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH", bool: "{True,False}"}
"""Kinds of values, as tyro calls them."""


def with_flowing_texts(config: Any) -> Any:
    """A twin of a config, for its help: each text is one paragraph, of which tyro keeps the line breaks of the source.

    What has no default, or nothing as one, is said to be required or optional.

    Parameters
    ----------
    config : dataclass
        Settings, and groups of settings.

    Returns
    -------
    dataclass
        Of another type, with the same names, types and values.
    """
    cls = type(config)
    hints = get_type_hints(cls, include_extras=True)
    texts = dict[str, str | None]()
    for kind in reversed(cls.__mro__[:-1]):
        found = docstring_parser.parse_from_object(kind).params
        texts |= {item.arg_name: item.description for item in found}
    values, fields = dict[str, Any](), list[tuple[str, Any]]()
    for name in (item.name for item in dataclasses.fields(cls)):
        value, hint, text = getattr(config, name), hints[name], texts.get(name)
        if dataclasses.is_dataclass(value):
            value = with_flowing_texts(value)
            hint = type(value)
        elif text:
            more = tyro.conf.arg(
                help=" ".join(text.split()),
                help_behavior_hint=_necessity(value),
                metavar=_kind(hint),
            )
            hint = Annotated[hint, more]
        values[name] = value
        fields.append((name, hint))
    twin = dataclasses.make_dataclass(cls.__name__, fields, namespace={"__doc__": cls.__doc__})
    return twin(**values)


def _kind(hint: Any) -> str | None:
    """What a setting that may be left out takes, without the None that nobody types; None: tyro's own words."""
    notes = getattr(hint, "__metadata__", ())
    if any(getattr(note, "metavar", None) for note in notes):
        return None
    kinds = get_args(get_args(hint)[0] if notes else hint)
    if type(None) not in kinds:
        return None
    words = [_WORDS.get(kind) or _choices(kind) for kind in kinds if kind is not type(None)]
    return "|".join(words) if all(words) else None


def _choices(kind: Any) -> str:
    return f"{{{','.join(map(str, get_args(kind)))}}}" if get_origin(kind) is Literal else ""


def _necessity(value: Any) -> str | None:
    """What the help says in place of a default that has no words."""
    if value is tyro.MISSING:
        return "(required)"
    return "(optional)" if value is None or value == () else None

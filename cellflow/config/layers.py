"""Settings in layers: defaults, those of the host, those of a file; flags go on top at the command line."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import tyro

from cellflow.config.also_called import also_called
from cellflow.errors import ConfigError, shorten

__all__ = ["Setting", "blank_config", "check_complete", "close_to", "settings_of", "with_settings"]

Config = TypeVar("Config")
CLOSE = 0.7
"""Words are taken for slips of each other from this share of common letters (difflib's ratio)."""
_LETTERS, _TOLD = 200, 20
"""Of what a message quotes of a file, in which a word may have any length; problems that it lists."""
_YAML_WORDS = {False: ("off", "no"), True: ("on", "yes")}
"""Words that YAML takes for a truth value."""


def blank_config(cls: type[Config]) -> Config:
    """A config of defaults; what has no default is `tyro.MISSING` until a layer or a flag gives it."""
    missing = dataclasses.MISSING
    required = {
        item.name: tyro.MISSING
        for item in dataclasses.fields(cls)  # type: ignore[arg-type]
        if item.default is missing and item.default_factory is missing
    }
    return cls(**required)


def check_complete(config: Any, source: str) -> None:
    """Raise a ConfigError that names what is still missing."""
    missing = [
        item.name
        for item in dataclasses.fields(config)
        if getattr(config, item.name) is tyro.MISSING
    ]
    if missing:
        raise ConfigError(f"{source}: {', '.join(missing)} must be given")


def with_settings(config: Config, values: Mapping[str, Any], source: str) -> Config:
    """A config with settings of a layer.

    Parameters
    ----------
    config : dataclass instance
        What is below.
    values : mapping
        Settings by the names of their flags, flat or in sections as `config_to_dict` writes them. Hyphens
        and underscores are equal.
    source : str
        Where they come from, for messages.

    Raises
    ------
    ConfigError
        Naming every unknown setting and every value of another kind.
    """
    places, problems = settings_of(type(config)), list[str]()
    changes: dict[tuple[str, ...], Any] = {}
    for name, value in _flat(values, places, ()):
        place = places.get(name[-1])
        if place is None or (len(name) > 1 and place.path != name):
            words = shorten(".".join(name), _LETTERS)
            hint = _instead(name[-1], places) if len(problems) < _TOLD else ""
            problems.append(f"{words}: no such setting{hint}")
            continue
        try:
            changes[place.path] = _convert(place.hint, value)
        except ValueError as error:
            given = shorten(repr(value), _LETTERS)
            problems.append(f"{'.'.join(name)}: expected {error}, found {given}")
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems[:_TOLD])
        lines += f"\n  and {len(problems) - _TOLD} more" * (len(problems) > _TOLD)
        raise ConfigError(f"{source} has settings that do not fit:\n{lines}")
    return _replace(config, changes)


def _instead(name: str, places: Mapping[str, Setting]) -> str:
    """What to write in place of an unknown setting: a choice of a list, as exports once were, or a near name."""
    for place in places.values():
        item = get_args(place.hint)[0] if get_origin(place.hint) is tuple else None
        if get_origin(item) is Literal and name in get_args(item):
            return f"; {name} is one of the list {'.'.join(place.path)} now, as in {place.path[-1]}: [{name}]"
    for text in also_called(name):
        ours, _, value = text.partition(" ")
        if ours in places:
            return f"; did you mean {ours}{f': {value}' if value else ''}?"
    near = close_to(name, places)
    return f"; did you mean {near}?" if near else ""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where a setting lies in a config, its type, and whether it is a word without a flag."""

    path: tuple[str, ...]
    hint: Any
    positional: bool = False


def settings_of(cls: type[Any]) -> Mapping[str, Setting]:
    """Settings by flag name, those of groups inside too; groups by the names of their fields."""
    known: Any = cls  # mypy takes no class for hashable
    return _settings_of(known)


@cache  # files of experiments have hundreds of layers
def _settings_of(cls: Any) -> Mapping[str, Setting]:
    found: dict[str, Setting] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        notes = getattr(hint, "__metadata__", ())
        plain = get_args(hint)[0] if notes else hint
        names = [item.name]
        for note in notes:
            names += [
                alias.lstrip("-").replace("-", "_")
                for alias in getattr(note, "aliases", None) or ()
            ]
        if dataclasses.is_dataclass(plain):
            for name, place in settings_of(typing.cast("type[Any]", plain)).items():
                found[name] = dataclasses.replace(place, path=(item.name, *place.path))
        for name in names:
            found[name] = Setting((item.name,), plain, tyro.conf.Positional in notes)
    return found


def _flat(
    values: Mapping[str, Any], places: Mapping[str, Setting], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Names with their values; sections opened."""
    for key, value in values.items():
        name = str(key).replace("-", "_")
        place = places.get(name)
        if isinstance(value, Mapping) and place and dataclasses.is_dataclass(place.hint):
            yield from _flat(value, places, place.path)
        elif path:
            yield (*path, name), value
        else:
            yield (name,), value


def close_to(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest, if one is near."""
    lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lower, 1, CLOSE)
    return lower[found[0]] if found else None


def _convert(hint: Any, value: Any) -> Any:
    """A value of YAML as a value of a setting's type; ValueError says what was expected."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _first_that_fits([item for item in arguments if item is not type(None)], value)
    if origin is typing.Annotated:
        return _convert(arguments[0], value)
    if origin is Literal:
        return _choice(arguments, value)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(arguments[0], item) for item in items)
    return _plain(hint, value)


def _first_that_fits(hints: list[Any], value: Any) -> Any:
    """A value of one of several types, such as a number or a name."""
    *others, last = hints
    for hint in others:
        with suppress(ValueError):
            return _convert(hint, value)
    return _convert(last, value)


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    if isinstance(value, bool):  # YAML reads off as false
        value = next((word for word in _YAML_WORDS[value] if word in choices), value)
    if value not in choices:
        raise ValueError(f"one of {', '.join(map(str, choices))}")
    return value


def _plain(hint: Any, value: Any) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int and number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if hint is float and (number or isinstance(value, str)):  # YAML reads 1e-5 as a text
        with suppress(ValueError, OverflowError):
            return float(value)
    if hint is str and (number or isinstance(value, str)):
        return str(value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise ValueError("a path" if hint is Path else names.get(hint, str(hint)))


def _replace(config: Config, changes: Mapping[tuple[str, ...], Any]) -> Config:
    """A copy with values at places inside groups replaced."""
    own = {path[0]: value for path, value in changes.items() if len(path) == 1}
    for group in {path[0] for path in changes if len(path) > 1}:
        inside = {path[1:]: value for path, value in changes.items() if path[0] == group}
        own[group] = _replace(getattr(config, group), {p: v for p, v in inside.items() if p})
    return dataclasses.replace(config, **own)  # type: ignore[type-var]

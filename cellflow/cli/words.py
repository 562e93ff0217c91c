"""Check of the words of a command before they are parsed: all that is wrong with them, in one error.

`tyro` parses them afterwards; it would tell of the first problem only, and not of what was meant.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import tyro

from cellflow.cli.meant import flags_of, unknown_flag
from cellflow.config.layers import close_to, settings_of
from cellflow.errors import ConfigError

__all__ = ["check_words"]

_TRUTH_VALUES = ("true", "false", "yes", "no", "on", "off", "0", "1")


def check_words(command: str, words: Sequence[str], default: Any) -> list[str]:
    """Check the flags and arguments of a command, and put them in an order that a parser takes.

    Parameters
    ----------
    command : str
        Its name.
    words : sequence of str
        What was typed after it, without --config.
    default : dataclass instance
        Its settings without the words; what must be given is `tyro.MISSING`.

    Returns
    -------
    list of str
        All arguments, wherever they stood, and then the flags with their values.

    Raises
    ------
    ConfigError
        Naming every flag that the command does not have, every value that is missing or of another kind,
        and arguments that are missing or too many.
    """
    if {"-h", "--help"} & set(words):
        return list(words)
    flags, problems = flags_of(type(default)), list[str]()
    loose, flagged, given = list[str](), list[str](), set[str]()
    left = list(words)
    while left and left[0] != "--":
        word = left.pop(0)
        if not _is_flag(word):
            loose.append(word)
            continue
        flag, equals, value = word.partition("=")
        name = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        positive = name.removeprefix("no_")
        setting = flags.get(name) or flags.get(positive)
        if setting is None or (name not in flags and setting.hint is not bool):
            after = [value] if equals else _until_flag(left)
            problems.append(unknown_flag(command, flag, " ".join(after)))
            continue
        given.add(setting.path[0])
        values = [value] if equals else _take(left, setting.hint)
        problems += _value_problems(flag, setting.hint, values)
        flagged += [word] if equals else [flag, *values]
    loose += left[1:]  # what follows a --
    problems += _argument_problems(command, loose, given, default, known=not problems)
    if problems:
        raise ConfigError.from_problems(problems)
    return [*flagged, "--", *loose] if any(map(_is_flag, loose)) else [*loose, *flagged]


def _is_flag(word: str) -> bool:
    """Whether a word is a flag and no value such as -1, -.5, -inf or "- a remark"."""
    try:
        float(word)
    except ValueError:
        return word.startswith("-") and word.strip("-") != "" and " " not in word
    return False


def _until_flag(left: list[str]) -> list[str]:
    """Take words up to the next flag."""
    taken = list[str]()
    while left and not _is_flag(left[0]) and left[0] != "--":
        taken.append(left.pop(0))
    return taken


def _take(left: list[str], hint: Any) -> list[str]:
    """Take the values of a flag; those of a list end where one is of another kind."""
    if hint is bool:
        return [left.pop(0)] if left and left[0].lower() in _TRUTH_VALUES else []
    if get_origin(hint) is not tuple:
        return [left.pop(0)] if left and not _is_flag(left[0]) and left[0] != "--" else []
    taken = list[str]()
    while left and not _is_flag(left[0]) and left[0] != "--":
        if taken and _expected(get_args(hint)[0], left[0]):
            break
        taken.append(left.pop(0))
    return taken


def _value_problems(flag: str, hint: Any, values: list[str]) -> list[str]:
    if hint is bool:
        off = f"--no_{flag.lstrip('-').replace('-', '_').removeprefix('no_')}"
        return [f"{flag} takes no value, found {text!r}; {off} turns it off" for text in values]
    if not values:
        return [f"{flag} takes {_kind(hint)}, found nothing"]
    item = get_args(hint)[0] if get_origin(hint) is tuple else hint
    wrong = {text: expected for text in values if (expected := _expected(item, text))}
    parts = [part for text in values for part in text.split(",")]
    if wrong and item is not hint and not any(_expected(item, part) for part in parts):
        return [f"{flag} takes values with blanks between them: {flag} {' '.join(parts)}"]
    return [f"{flag} takes {expected}, found {text!r}" for text, expected in wrong.items()]


def _expected(hint: Any, text: str) -> str:
    """What a text should be instead; empty if it is that."""
    plain = _without_none(hint)
    if plain is not hint and text == "None":
        return ""
    if get_origin(plain) is Literal:
        choices = [str(choice) for choice in get_args(plain)]
        near = close_to(text, choices)
        meant = f" (did you mean {near}?)" if near else ""
        return "" if text in choices else _kind(plain) + meant
    if plain is bool:
        return "" if text in ("True", "False") else "True or False"
    try:
        if plain in (int, float):
            plain(text)
    except ValueError:
        return _kind(plain)
    return ""


def _kind(hint: Any) -> str:
    """A type in words."""
    plain = _without_none(hint)
    if get_origin(plain) is Literal:
        return f"one of {', '.join(map(str, get_args(plain)))}"
    if get_origin(plain) is tuple:
        return "one value or more"
    return {int: "a whole number", float: "a number", bool: "True or False"}.get(plain, "a value")


def _without_none(hint: Any) -> Any:
    """A type without the None that it may be instead; of several the last, which takes what no other does."""
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    *_, other = (item for item in get_args(hint) if item is not type(None))
    return other


def _argument_problems(
    command: str, loose: list[str], given: set[str], default: Any, *, known: bool
) -> list[str]:
    """Arguments that are missing or too many; only where all flags are known is it clear what is one."""
    places = {
        name: item.hint for name, item in settings_of(type(default)).items() if item.positional
    }
    needed = [
        item.name
        for item in dataclasses.fields(default)
        if getattr(default, item.name) is tyro.MISSING and item.name not in given
    ]
    lists = any(get_origin(_without_none(hint)) is tuple for hint in places.values())
    names = " ".join(name.upper() for name in places)
    if len(loose) > len(places) and not lists and known:
        takes = f"{names} and flags" if places else "flags only"
        is_flag = loose[0].replace("-", "_") in flags_of(type(default))
        meant = f"; did you mean --{' '.join(loose)}?" if is_flag else ""
        return [f"cellflow {command} takes {takes}, found {' '.join(loose)}{meant}"]
    missing = [name for name in needed if name in places][len(loose) :]
    flags = [name for name in needed if name not in places]
    if not (missing or flags) or not known:
        return []
    hints = {name: item.hint for name, item in flags_of(type(default)).items()}
    wanted = ", ".join([*(name.upper() for name in missing), *(f"--{name}" for name in flags)])
    words = [names, *(f"--{name} {_example(hints[name])}" for name in flags)]
    return [f"{wanted} must be given: cellflow {command} {' '.join(filter(None, words))}"]


def _example(hint: Any) -> str:
    """What stands for the value of a flag: its choices, else that one is wanted."""
    plain = _without_none(hint)
    return "|".join(map(str, get_args(plain))) if get_origin(plain) is Literal else "..."

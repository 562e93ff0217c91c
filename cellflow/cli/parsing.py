"""Words of the command line to a config: flags over a config file over defaults of the host."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from cellflow import config as configs
from cellflow.cli.help_texts import with_flowing_texts
from cellflow.cli.words import check_words
from cellflow.config.layers import blank_config, with_settings
from cellflow.environment.config_defaults import with_host_defaults
from cellflow.errors import ConfigError
from cellflow.storage.config_file import read_config_file

__all__ = ["parse", "taken_out"]

_TRAINING = (configs.TrainConfig, configs.ChainConfig)
"""Settings that take --sgd, --adam and --SGD."""
_NOTE = (
    "--config FILE.yaml takes settings from a file, by the names of their flags; flags go on top."
)


def parse(
    name: str,
    words: Sequence[str],
    *,
    config: type[Any],
    prog: str | None = None,
) -> Any:
    """Settings of a command.

    Parameters
    ----------
    name : str
        The command.
    words : sequence of str
        Flags and arguments.
    config : type
        Dataclass of its settings.
    prog : str or None
        How the program is called in help texts.

    Raises
    ------
    ConfigError
        If a config file or the words do not fit: flags that are not there, values of another kind.
    """
    rest, files = _config_files(words)
    default = with_host_defaults(blank_config(config), name)
    for path in files:
        default = with_settings(default, read_config_file(path, name), f"--config {path}")
    words = _optimizer_flags(rest) if config in _TRAINING else rest
    words = check_words(name, words, default)
    description = f"{_in_words(config)}\n\n{_NOTE}"
    if {"-h", "--help"} & set(words):  # after which the program ends
        default = with_flowing_texts(default)
        config = type(default)
    return tyro.cli(
        config,
        prog=prog or f"cellflow {name}",
        description=description,
        default=default,
        args=words,
        use_underscores=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def taken_out(config: type[Any]) -> dict[str, Any]:
    """Flags that are no settings, with the types of their values: they are taken out of the words first."""
    switch = tyro.conf.FlagCreatePairsOff[bool]
    return {"config": Path} | ({"sgd": switch, "adam": switch} if config in _TRAINING else {})


def _in_words(config: type[Any]) -> str:
    """What a command does: the docstring of its settings without the examples, which are for Python."""
    return inspect.cleandoc(config.__doc__ or "").partition("\n\nExamples\n")[0]


def _config_files(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Take every --config FILE out of the words."""
    rest, files, left = list[str](), list[Path](), list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if flag != "--config":
            rest.append(word)
            continue
        if not equals and not left:
            raise ConfigError("--config takes a YAML file, found nothing")
        files.append(Path(value if equals else left.pop(0)))
    return rest, files


def _optimizer_flags(words: Sequence[str]) -> list[str]:
    """Write --sgd, --adam and Cellpose's --SGD 0|1 as --optimizer."""
    result: list[str] = []
    chosen: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in ("--sgd", "--SGD", "--adam"):
            result.append(word)
            continue
        if flag != "--adam" and not equals and rest and not rest[0].startswith("-"):
            equals, value = "=", rest.pop(0)
        if equals and (flag == "--adam" or value not in ("0", "1")):
            takes = "takes no value" if flag == "--adam" else "takes 0, 1 or nothing"
            raise ConfigError(f"{flag} {takes}, found {value!r}")
        chosen[word] = "adamw" if flag == "--adam" or value == "0" else "sgd"
    if len(set(chosen.values())) > 1:
        raise ConfigError(f"{' and '.join(chosen)} contradict each other; give one of them")
    return result + [part for name in chosen.values() for part in ("--optimizer", name)][:2]

"""Settings of a command as a YAML file that can be run again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from cellflow.config import config_to_dict
from cellflow.errors import ConfigError
from cellflow.storage.atomic import write_text
from cellflow.storage.nearby import nearby
from cellflow.storage.records import load_yaml
from cellflow.storage.secrets import redact

__all__ = ["read_config_file", "read_yaml", "write_config_file", "yaml_kind"]

COMMAND = "command"
"""Key of the command that the settings are for; a file without it fits any."""


def read_config_file(path: Path, command: str) -> dict[str, Any]:
    """Settings of a file, flat or in sections.

    Parameters
    ----------
    path : Path
        YAML.
    command : str
        The command they are for.

    Raises
    ------
    ConfigError
        If the file cannot be read or is for another command.
    """
    found = read_yaml(path, f"--config {path}")
    if not isinstance(found, dict):
        text = (
            f"--config {path}: expected lines of NAME: VALUE, such as n_epochs: 100, found "
            f"{yaml_kind(found)}"
        )
        raise ConfigError(text, path=path, expected=dict, found=type(found))
    if "data_hash" in found and "config" in found:
        raise ConfigError(
            f"--config {path} is the record of a run, found instead of settings. The settings of the "
            f"command that made it lie beside it: {path.with_name('train.yaml')}",
            path=path,
        )
    made_for = found.pop(COMMAND, command)
    if made_for != command:
        text = f"--config {path} is for cellflow {made_for}, not for cellflow {command}"
        raise ConfigError(text, path=path, expected=command, found=made_for)
    return {str(key): value for key, value in found.items()}


def read_yaml(path: Path, named: str) -> Any:
    """Read what a YAML file holds; of a file that is none, a ConfigError says so of what is `named`."""
    try:
        return load_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"{named}: there is no such file.{nearby(path)}", path=path) from None
    except OSError as error:
        raise ConfigError(f"{named} cannot be read: {error.strerror}", path=path) from None
    except ValueError as error:
        raise ConfigError(f"{named} is no YAML: {error}", path=path) from None


def yaml_kind(value: object) -> str:
    """What a value of a YAML file is, in words."""
    kinds = {dict: "lines of NAME: VALUE", list: "a list", str: "a text", type(None): "nothing"}
    return kinds.get(type(value), f"the value {value}")


def write_config_file(path: Path, command: str, config: Any) -> None:
    """Write all settings of a command, defaults too; ``cellflow COMMAND --config PATH`` runs it again."""
    text = yaml.safe_dump({COMMAND: command, **config_to_dict(config)}, sort_keys=False)
    write_text(path, redact(f"# cellflow {command} --config {path.name}\n{text}", os.environ))

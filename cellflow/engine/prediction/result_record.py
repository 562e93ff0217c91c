"""``prediction.json``: what a result was made with, what is written of it, and what its tables hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any

from cellflow.config import config_differences
from cellflow.engine.exports import EXPORTS
from cellflow.errors import DataError
from cellflow.storage.atomic import is_temporary, write_json
from cellflow.storage.records import load_json

__all__ = ["RECORD", "ResultRecord"]

RECORD = "prediction.json"
_FORMAT = "cellflow-prediction"
_VERSION = 1


class ResultRecord:
    """The record of one result; every change is written at once."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self._path = folder / RECORD
        self._values = values

    @classmethod
    def start(
        cls, folder: Path, identity: Mapping[str, Any], exports: AbstractSet[str]
    ) -> ResultRecord:
        """The record that is there, if it has this identity; else a new one, which is written.

        Raises
        ------
        DataError
            If the result there was made with something else, or its record is damaged.
        """
        new: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "identity": json.loads(json.dumps(identity)),  # as it is read back, to be compared
            "exports": {name: name in exports for name in EXPORTS},
            "images": {},
            "cells": {},
        }
        path = folder / RECORD
        if not path.exists():
            write_json(path, new)
            return cls(folder, new)
        old = _read(path)
        if old is None:
            raise DataError(_not_ours(folder), path=path)
        changes = config_differences(_compared(old), _compared(new))
        if changes:
            raise DataError(
                f"{folder} holds a prediction made with something else (old -> new):\n"
                + "\n".join(f"  - {line}" for line in changes)
                + "\nGo back to the old to continue it, add --overwrite to replace it, or choose "
                "another --name.",
                path=path,
            )
        return cls(folder, old)

    @staticmethod
    def exports_of(folder: Path) -> set[str]:
        """Names of what was written into a folder; none if there is no result."""
        old = _read(folder / RECORD)
        return set() if old is None else ResultRecord(folder, old).exports

    @property
    def exports(self) -> set[str]:
        """Names of what is written."""
        return {name for name, wanted in self._values["exports"].items() if wanted}

    @property
    def images(self) -> dict[str, str]:
        """What tells whether an image has changed, by id."""
        return dict(self._values.get("images", {}))

    @property
    def cells(self) -> dict[str, int]:
        """Images in the tables, in their order, with their cells."""
        return dict(self._values["cells"])

    def change(self, **parts: Mapping[str, Any]) -> None:
        """Change `exports` (by name whether it is written), `images` or `cells`."""
        new = {key: dict(part) for key, part in parts.items()}
        if any(list(self._values.get(key, {}).items()) != list(new[key].items()) for key in new):
            self._values = self._values | new
            write_json(self._path, self._values)


def check_place(folder: Path, *, ignored: AbstractSet[str]) -> None:
    """Refuse what is no folder, or holds files but no record of a prediction.

    Files that are `ignored` say nothing, and neither do those of a write that was killed, as that of the record
    itself may have been.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder for the results, found a file.", path=folder)
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    there = {name for name in names - ignored if not is_temporary(name)}
    if there and _read(folder / RECORD) is None:
        raise DataError(_not_ours(folder), path=folder)


def _not_ours(folder: Path) -> str:
    return (
        f"{folder}: expected no folder, an empty one or a result of `cellflow predict`; found files and "
        f"no {RECORD} of cellflow. It is not overwritten: choose another --name, or move it away."
    )


def _read(path: Path) -> dict[str, Any] | None:
    """What made a result, or None if the file is missing or not ours."""
    with suppress(OSError, ValueError):
        values = load_json(path)
        if isinstance(values, dict) and values.get("format") == _FORMAT and "version" in values:
            parts: dict[str, Any] = {"images": {}} | values
            groups = [parts.get(key) for key in ("identity", "exports", "images", "cells")]
            if (
                all(isinstance(group, dict) for group in groups)
                and all(type(count) is int for count in values["cells"].values())
                and values["exports"].keys() <= EXPORTS.keys()
            ):
                return values
    return None


def _compared(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that must be equal, with the names people know on top."""
    compared = dict(values["identity"], **{"format version": values["version"]})
    with suppress(KeyError, TypeError, AttributeError):  # a damaged record
        compared["members"] = ", ".join(
            f"{item['name']} ({item['hash'][:8]}){_channels(item)}"
            + (f" for {item['only_type']}" if item.get("only_type") else "")
            for item in compared["members"]
        )
    return compared


def _channels(member: Mapping[str, Any]) -> str:
    """Channels of a member in words, nothing for grey; records of earlier versions have none."""
    chan, chan2 = member.get("chan", 0), member.get("chan2", 0)
    return f" --chan {chan} --chan2 {chan2}" if (chan, chan2) != (0, 0) else ""

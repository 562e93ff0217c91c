"""What a dataset folder says of itself, in ``dataset.json``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from cellflow.errors import DataError
from cellflow.io.images import IMAGE_SUFFIXES
from cellflow.storage.atomic import restore_folder
from cellflow.storage.records import load_json, read_json

FORMAT = "cellflow-dataset"
VERSION = 1


def is_dataset(path: Path) -> bool:
    """Whether a folder is one of ours, damaged or not; nnU-Net and others write a ``dataset.json`` too."""
    file = path / "dataset.json"
    facts = read_json(file) if file.is_file() else {}
    return facts is None or "format" in facts


def read_facts(path: Path) -> dict[str, Any]:
    """What ``dataset.json`` says of the dataset in a folder: format, version, data hash and more."""
    file = path / "dataset.json"
    if not file.is_file():
        restore_folder(path)  # a killed `prepare --overwrite` may have moved it away
    if not file.is_file():
        message = f"{path}: expected a dataset folder, found {_found_instead(path)}"
        raise DataError(message, path=path)
    try:
        facts = load_json(file)
    except (OSError, ValueError) as error:
        text = f"{file}: not the description of a cellflow dataset ({error}). Prepare it again."
        raise DataError(text, path=file) from error
    wanted = {"format": str, "version": int, "data_hash": str}
    for key, kind in wanted.items():
        if not isinstance(facts, dict) or not isinstance(facts.get(key), kind):
            raise DataError(
                f"{file}: not the description of a cellflow dataset (expected {key} to be "
                f"{'a text' if kind is str else 'a whole number'}). Prepare it again.",
                path=file,
                expected=kind,
                found=facts.get(key) if isinstance(facts, dict) else facts,
            )
    if facts["format"] != FORMAT:
        text = f"{file}: expected the format {FORMAT}, found {facts['format']!r:.80}. Prepare it again."
        raise DataError(text, path=file, expected=FORMAT, found=facts["format"])
    version = facts["version"]
    if version > VERSION:
        text = (
            f"{file}: version {version} of the format, this cellflow knows {VERSION}. "
            "Update cellflow or prepare the dataset again."
        )
        raise DataError(text, path=file, expected=VERSION, found=version)
    return dict(facts)


def _found_instead(path: Path) -> str:
    """What is in the place of a dataset, and what to type."""
    beside = sorted(file.parent for file in path.glob("*/dataset.json"))
    if beside:
        return f"one inside it. Say --data {shlex.quote(str(beside[0]))}"
    if not path.is_dir():
        beside = sorted(file.parent for file in path.parent.glob("*/dataset.json"))
        there = f" There is: {', '.join(map(str, beside[:3]))}." if beside else ""
        out = shlex.quote(str(path))
        return f"no such folder. Make one with `cellflow prepare SOURCE --out {out}`.{there}"
    files = (file for pattern in ("*", "*/*") for file in path.glob(pattern))
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        return (
            f"images that are not prepared yet. Type: cellflow prepare {shlex.quote(str(path))}; then the "
            "same command without this folder, as the dataset is in its usual place."
        )
    return f"no dataset.json in it. Make one with `cellflow prepare SOURCE --out {shlex.quote(str(path))}`."

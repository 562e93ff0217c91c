"""Write a notebook that makes a submission on Kaggle from a published run, without internet."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from pprint import pformat
from typing import Any

from cellflow.config import check_config
from cellflow.config.publishing import NotebookConfig
from cellflow.engine.publishing import notebook_cells as cells
from cellflow.engine.publishing.publish import dataset_title
from cellflow.engine.runs.contents import check_models
from cellflow.errors import DataError
from cellflow.io.notebooks import Cell, notebook_text
from cellflow.storage.atomic import write_text
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["write_notebook"]

_log = logging.getLogger(__name__)


def write_notebook(config: NotebookConfig) -> Path:
    """Write the notebook of a run.

    It needs the dataset that `publish` has made of the same run, and nothing else: it knows the run by
    the hashes of its models, wherever the dataset is mounted and whatever its name. Where the inputs
    and the result lie can be changed with CELLFLOW_KAGGLE_INPUT and CELLFLOW_KAGGLE_WORKING.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError, RunError
        If a setting makes no sense, or the run is missing or unfinished.
    DataError
        If another file is there, and `overwrite` is false.

    Examples
    --------
    >>> from cellflow import NotebookConfig, write_notebook
    >>> path = write_notebook(NotebookConfig("exp"))
    >>> path.name
    'exp-kaggle.ipynb'
    """
    check_config(config)
    run = find_run(config.run, config.runs_dir)
    models = check_models(run, unfinished=config.unfinished, partial=config.unfinished)
    text = notebook_text(_cells(config, run, list(models.values())))
    path = config.out or Path(f"{run.name}-kaggle.ipynb")
    if path.exists() and not config.overwrite and path.read_bytes() != text.encode():
        raise DataError(
            f"{path} is there already and says something else. Choose another --out, or add --overwrite "
            "to replace it."
        )
    write_text(path, text)
    if dataset_title(run) is None:
        _log.info(
            "it needs the published run, which there is not yet: cellflow publish %s", run.name
        )
    return path


def _cells(config: NotebookConfig, run: RunFolder, models: list[Path]) -> list[Cell]:
    title = dataset_title(run) or "its dataset"
    hashes = {path.relative_to(run.path).as_posix(): hash_file(path) for path in models}
    values = {
        "experiment": run.name,
        "title": title,
        "models": hashes,
        "images": config.images,
        "flags": list(_flags(config)),
    }
    literals = {name: pformat(value, width=98, sort_dicts=False) for name, value in values.items()}
    words = {"experiment": run.name, "title": title, "images": config.images}
    return [
        Cell("introduction", "markdown", cells.INTRODUCTION.format(**words)),
        Cell("settings", "code", cells.SETTINGS.format(**literals)),
        Cell("find", "code", cells.FIND),
        Cell("install", "code", cells.INSTALL),
        Cell("predict", "code", cells.PREDICT),
        Cell("submission", "code", cells.SUBMISSION),
    ]


def _flags(config: NotebookConfig) -> Iterator[str]:
    """Flags of `cellflow predict` that say what the config says."""
    if config.unfinished:
        yield "--unfinished"
    for group in (config.inference, config.mask):
        for item in dataclasses.fields(group):
            value = getattr(group, item.name)
            if value != item.default:
                yield from _flag(item.name, value)


def _flag(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield f"--{name}" if value else f"--no_{name}"
    elif isinstance(value, tuple):
        yield from (f"--{name}", *map(str, value))
    else:
        yield f"--{name}={value}"  # a value may begin with a minus

"""Write a run's models in a form that others take: `cellflow export`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellflow.config import check_config
from cellflow.config.model_export import ModelExportConfig
from cellflow.engine.model_exports.archive import export_archive
from cellflow.engine.model_exports.bioimageio import export_bioimageio
from cellflow.engine.model_exports.cellpose import export_cellpose
from cellflow.engine.model_exports.job import ModelExportJob, open_job
from cellflow.engine.model_exports.onnx import export_onnx
from cellflow.errors import DataError
from cellflow.storage.atomic import atomic_folder, restore_folder
from cellflow.types import one_line

__all__ = ["TARGETS", "ModelExport", "export_model"]

TARGETS: dict[str, Callable[[ModelExportJob, Path], list[Path]]] = {
    "cellpose": export_cellpose,
    "bioimageio": export_bioimageio,
    "onnx": export_onnx,
}
"""What writes files into a folder, by the name of the form; an archive is one file."""
ARCHIVE = "archive"
_WRITTEN = re.compile(r"README\.md|merged\.onnx|.+_fold_\d+(\.onnx|\.zip)?")
"""Files that an export writes into its folder."""


@one_line
@dataclass(frozen=True)
class ModelExport:
    """What was written.

    Attributes
    ----------
    to : str
        In which form.
    path : Path
        File or folder.
    files : tuple of (Path, int)
        Every file and its bytes.
    folds : tuple of int
        Folds whose models they hold.
    """

    to: str
    path: Path
    files: tuple[tuple[Path, int], ...]
    folds: tuple[int, ...]


def export_model(config: ModelExportConfig) -> ModelExport:
    """Write the models of a run for another program or another machine.

    Raises
    ------
    ConfigError, RunError, FoldError, CheckpointError
        If a setting makes no sense, or the run, a fold or a model is missing, unfinished or damaged.
    DataError
        If something is at the target already, and `overwrite` is false.
    PackageError
        If a package is missing that the form takes; the message says how to install it.

    Examples
    --------
    >>> from cellflow import ModelExportConfig, export_model, load_model
    >>> export = export_model(ModelExportConfig(run="exp", to="archive"))
    >>> export.path.as_posix(), export.folds
    ('exp.zip', (0, 1))
    >>> load_model("exp.zip", device="cpu")
    Model('exp', 2 members, cpu, diameter 21.1-21.8, thresholds: those of the training, not calibrated)
    """
    check_config(config)
    job = open_job(config)
    path = config.out or _default_path(job)
    restore_folder(path)
    if path.exists() and not config.overwrite:
        raise DataError(
            f"{path} is there already. Choose another --out, or add --overwrite to replace it.",
            path=path,
        )
    if config.to == ARCHIVE:
        if path.is_dir():
            text = f"{path}: expected a file to write, found a folder. Choose another --out."
            raise DataError(text, path=path)
        files = export_archive(job, path)
    else:
        files = _into_folder(job, path)
    sizes = tuple((file, file.stat().st_size) for file in files)
    return ModelExport(config.to, path, sizes, tuple(job.members))


def _default_path(job: ModelExportJob) -> Path:
    to = job.config.to
    return Path(f"{job.run.name}.zip" if to == ARCHIVE else f"{job.run.name}-{to}")


def _into_folder(job: ModelExportJob, path: Path) -> list[Path]:
    """Write into a new folder, which takes the place of an earlier export, and of nothing else."""
    if path.exists() and not _is_ours(path):
        raise DataError(
            f"{path}: expected a folder that cellflow export has written, to replace it; found something else. "
            "Choose another --out.",
            path=path,
        )
    with atomic_folder(path, replace=job.config.overwrite) as folder:
        files = TARGETS[job.config.to](job, folder)
    return [path / file.relative_to(folder) for file in files]


def _is_ours(path: Path) -> bool:
    """Whether a folder holds an export and nothing else, or nothing at all."""
    return path.is_dir() and all(
        item.is_file() and _WRITTEN.fullmatch(item.name) for item in path.iterdir()
    )

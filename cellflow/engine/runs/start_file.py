"""Which model file a fold's training starts from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cellflow.engine.runs.model_files import find_model_file
from cellflow.errors import CheckpointError
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

__all__ = ["start_file", "start_hashes", "start_identity"]


def start_file(name: str, fold: int, *, download: bool = True) -> Path:
    """The model file that a fold starts from.

    `name` is a model file by path, by its name in Cellpose's model folder, or by the name of a model of Cellpose's;
    or a run folder, of which every fold takes the model of the same fold, the one that has not seen its validation
    images. `download` fetches a model of Cellpose's that is not in its folder.
    """
    run = RunFolder(Path(name))
    if not run.exists():
        return find_model_file(name, download=download)
    best = run.fold(fold).best
    if not best.is_file():
        raise CheckpointError(
            f"--pretrained_model {name}: this run has no model of fold {fold} to start fold {fold} from, "
            f"expected {best}. Train it there first, or choose other folds with --fold."
        )
    return best


def start_identity(name: str, *, download: bool = True) -> str:
    """What a start model is: a file by its content, a run by its name.

    A run may get models of more folds meanwhile; `start_hashes` has their contents.
    """
    run = RunFolder(Path(name))
    if run.exists():
        return f"run {run.path.resolve().name}"
    path = find_model_file(name, download=download)
    return f"{path.name} ({hash_file(path)})"


def start_hashes(name: str, folds: Iterable[int]) -> dict[str, str]:
    """Hash of the model that each fold starts from, where the start is a run with a model of that fold."""
    run = RunFolder(Path(name))
    if not run.exists():
        return {}
    models = {str(fold): run.fold(fold).best for fold in folds}
    return {fold: hash_file(path) for fold, path in models.items() if path.is_file()}

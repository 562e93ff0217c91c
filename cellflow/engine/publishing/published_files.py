"""What is published of a run or of prepared data: a list of what belongs, so that nothing else slips in.

Notebook checkpoints, locks, logs, caches, tracking state and leftovers of writes are not on the list;
training state and out-of-fold flows are when asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cellflow.engine.runs.contents import vouching_run
from cellflow.engine.runs.metadata import read_metadata
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.thresholds import read_thresholds
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.storage.atomic import write_json
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import FoldFolder, RunFolder, ensemble_record
from cellflow.storage.secrets import without_private_facts

__all__ = ["data_files", "public_records", "run_files"]

_LEFTOVER = re.compile(r"\.tmp$|\.old$|^\..*")
_CACHES = ("__pycache__",)


def run_files(
    run: RunFolder,
    models: Mapping[int, Path],
    *,
    ensembles_dir: Path,
    state: bool = False,
    flows: bool = False,
) -> dict[str, Path]:
    """Files of a run by their names in the published folder.

    `models` are the best of every fold; thresholds for all of them together may lie in `ensembles_dir`. Training state
    and out-of-fold flows go too where they are asked for, and are refused where they are not there. Metadata, which
    name the host, go as `public_records` has them.
    """
    paths = [
        run.record_path, run.folds, run.folds.with_suffix(".json"), run.cv, run.thresholds,
        run.oof_record, run.scores, run.oof / "predictions.csv", run.oof / "cell_types.csv",
        *_all_in(run.calibration),
    ]  # fmt: skip
    for fold in models:
        paths += _fold_files(run.fold(fold), state=state)
    if flows:
        paths += _present(_all_in(run.flows), run.flows, "--flows", f"cellflow oof {run_word(run)}")
    found = {path.relative_to(run.path).as_posix(): path for path in paths if path.is_file()}
    keeper = vouching_run(run)
    if keeper is not None:  # they go with the network, which cannot have its own
        own = (keeper.thresholds, keeper.oof_record)
        found |= {path.relative_to(keeper.path).as_posix(): path for path in own if path.is_file()}
    record = ensemble_record(ensembles_dir, [run.name])
    if record.is_file() and _belongs(record, models.values()):
        found[f"ensembles/{run.name}/{record.name}"] = record
    return found


def public_records(run: RunFolder, folder: Path) -> dict[str, Path]:
    """Copies, in a folder, of the run's records without what is nobody's business: paths, host name, trackers."""
    record = run.read_record()
    copy = RunFolder(folder)
    copy.write_record(record | {"data": Path(str(record["data"])).name})
    found = {copy.record_path.name: copy.record_path}
    metadata = read_metadata(run)
    if metadata is not None:
        host = metadata.get("host")
        if isinstance(host, dict):
            host = without_private_facts(host)
        data = dict(metadata["data"], path=Path(str(metadata["data"]["path"])).name)
        write_json(copy.metadata, metadata | {"host": host, "data": data, "trackers": {}})
        found[copy.metadata.name] = copy.metadata
    return found


def data_files(dataset: Dataset) -> dict[str, Path]:
    """Files of a prepared dataset, with its folds, by their names in the published folder."""
    root = dataset.path
    tables = ("dataset.json", "images.csv", "instances.csv", "folds.csv", "folds.json")
    paths = [root / name for name in tables]
    paths += [root / "images" / str(name) for name in dataset.images["file"]]
    paths += [path for path in _all_in(root / "labels") if path.suffix == ".tif"]
    return {path.relative_to(root).as_posix(): path for path in paths if path.is_file()}


def _fold_files(fold: FoldFolder, *, state: bool) -> list[Path]:
    paths = [
        fold.best, fold.styles, fold.summary, fold.history, fold.evaluations, fold.plot, fold.samples,
    ]  # fmt: skip
    if state:
        there = [path for path in (fold.last, fold.good) if path.is_file()]
        remedy = "nothing can bring it back but a new training"
        paths += _present(there, fold.last, "--state", remedy)
    return paths


def _present(paths: Iterable[Path], expected: Path, flag: str, remedy: str) -> list[Path]:
    found = list(paths)
    if not found:
        raise RunError(f"{flag} wants {expected}, which is not there. Make it with: {remedy}")
    return found


def _all_in(folder: Path) -> Iterator[Path]:
    """All files in a folder and its folders, without hidden ones, caches and leftovers."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        skipped = any(_LEFTOVER.search(part) or part in _CACHES for part in parts)
        if path.is_file() and not skipped:
            yield path


def _belongs(record: Path, models: Iterable[Path]) -> bool:
    """Whether an ensemble was calibrated for exactly these models."""
    return sorted(read_thresholds(record).members) == sorted(map(hash_file, models))

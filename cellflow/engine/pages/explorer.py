"""The explorer of a run's report: its images with their errors, and the files beside the page."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from cellflow.engine.pages.explorer_image import ExplorerSource, MadeImage, picture_name
from cellflow.engine.runs.contents import read_table, run_dataset
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import find_oof_record
from cellflow.engine.runtime.progress_lines import follow
from cellflow.errors import CellflowError, DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.report.pages.explorer import ExplorerFacts, ExplorerImage
from cellflow.report.pages.picture import address_of
from cellflow.storage.atomic import atomic_folder, restore_folder, write_json
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.plain_values import plain
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.run_folder import RunFolder, is_final_record

__all__ = ["explorer_facts", "fellow_runs", "run_explorer"]

_log = logging.getLogger(__name__)
INDEX = "index.json"
"""What the files of the folder are; it marks the folder as one that may be replaced."""
_SCORES = ("score", "n_true", "n_predicted", "n_found", "n_missed", "n_false")
_FELLOWS = 8
_THREADS = 4


def run_explorer(
    run: RunFolder, *, data: Path | None = None, folder: Path | None = None
) -> ExplorerFacts:
    """The same as `explorer_facts`, with the data where they are; what is wrong stands in the notes."""
    dataset, missing = None, ""
    try:
        dataset = run_dataset(run, data)
    except CellflowError as error:
        missing = str(error)
    try:
        return explorer_facts(run, dataset, folder=folder, missing=missing)
    except CellflowError as error:
        return ExplorerFacts((), notes=[("warning", f"The images cannot be shown: {error}")])


def explorer_facts(
    run: RunFolder,
    dataset: Dataset | None,
    *,
    folder: Path | None = None,
    missing: str = "The data of the run are not here. Say where they are with --data.",
) -> ExplorerFacts:
    """Gather what the explorer shows, and write the pictures and outlines of the images beside the page.

    What was made before of the same pixels, cells and flows is not made again. The folder is replaced as a
    whole, or stays as it is.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path, optional
        Folder to write, in the one of the page; without it ``report-files`` of the run.
    dataset : Dataset or None
        The data of the run; without it there is neither image nor truth.
    missing : str
        Why there is no dataset.

    Returns
    -------
    ExplorerFacts
        Without images where the run has no out-of-fold predictions, or nothing to show of them.

    Raises
    ------
    RunError
        If the table of scores is damaged.
    DataError
        If the folder holds something else.
    """
    if not run.scores.is_file():
        text = f"No out-of-fold predictions yet. Make them with: cellflow oof {run_word(run)}"
        if run.exists() and is_final_record(run.read_record()):
            text = "There are no out-of-fold predictions: this network has seen all images."
        return ExplorerFacts((), notes=[("note", text)])
    again = f"Make it again with: cellflow oof {run_word(run)}"
    scores = read_table(run.scores, ["id", "fold", "score"], remedy=again)
    fellows = fellow_runs(run)
    source = _source(run, dataset, fellows, len(scores))
    if source.dataset is None and source.masks is None and source.flows is None:
        return ExplorerFacts((), notes=[("note", _nothing_text(run, missing))])
    names = [str(name) for name in scores["id"]]
    beside = _Folder(run.report_files if folder is None else folder, source)
    made = beside.write(names)
    rows = zip(scores.to_dict("records"), made, strict=True)
    return ExplorerFacts(
        [beside.image(row, item) for row, item in rows],
        folder=quote(beside.path.name),
        masks=_masks_text(run) if source.masks is not None else "",
        members=[run.name, *(fellow.name for fellow in fellows)] if source.members else (),
        notes=_notes(run, source, made, missing),
        has_truth=source.dataset is not None,
        has_prediction=source.masks is not None,
    )


def fellow_runs(run: RunFolder) -> list[RunFolder]:
    """Runs beside this one with out-of-fold flows of the same data and split, the newest few."""
    own = run.read_record()
    found = []
    for path in run.path.parent.glob("*/oof/flows.zarr"):
        other = RunFolder(path.parent.parent)
        if other.path.resolve() == run.path.resolve():
            continue
        with suppress(RunError):
            record = other.read_record()
            if all(record[key] == own[key] for key in ("data_hash", "folds_hash", "folds")):
                found.append((path.stat().st_mtime, other))
    newest = sorted(found, key=lambda item: -item[0])[:_FELLOWS]
    return sorted((other for _, other in newest), key=lambda other: other.name)


def _source(
    run: RunFolder, dataset: Dataset | None, fellows: Sequence[RunFolder], count: int
) -> ExplorerSource:
    masks = run.oof / "masks"
    flows = _store(run)
    stores = [store for fellow in fellows if (store := _store(fellow)) is not None]
    return ExplorerSource(
        dataset,
        masks if masks.is_dir() else None,
        flows,
        stores if flows is not None else (),
        _channels(run),
        count,
        hash_json([_made_by(item) for item in (run, *fellows)] if flows is not None else []),
    )


def _store(run: RunFolder) -> FlowStore | None:
    try:
        return FlowStore(run.flows)
    except CellflowError:  # cellflow prune may have removed them
        return None


def _made_by(run: RunFolder) -> str:
    """Changes with the flows of a run."""
    try:
        return hash_file(run.oof_record)
    except OSError:
        return str(run.flows.stat().st_mtime_ns) if run.flows.exists() else ""


def _channels(run: RunFolder) -> tuple[int, int]:
    """Numbers of the channels that the run looks at; 0 where the record does not tell."""
    model = dict_or_empty(dict_or_empty(run.read_record().get("config")).get("model"))
    chan, chan2 = (
        value if type(value) is int else 0 for value in map(model.get, ("chan", "chan2"))
    )
    return chan, chan2


def _masks_text(run: RunFolder) -> str:
    """Which predicted outlines are shown."""
    text = "The predicted outlines are those of oof/masks"
    made = find_oof_record(run)
    if made is not None:
        limits = [
            f"{key} {made.mask[key]:g}"
            for key in ("flow_threshold", "cellprob_threshold")
            if key in made.mask
        ]
        text += f", cut with {' and '.join(limits)}" if limits else ""
    if run.thresholds.is_file():
        text += "; the thresholds that were calibrated afterwards are not applied to them"
    return text + "."


def _nothing_text(run: RunFolder, missing: str) -> str:
    """What is said of a run whose images, masks and flows are all elsewhere."""
    return (
        f"No image can be shown. {missing} The out-of-fold masks and flows ({run.oof.name}/masks, "
        f"{run.oof.name}/{run.flows.name}) are not here either; a published run comes without them. Make them "
        f"again with: cellflow oof {run_word(run)} --data FOLDER"
    )


def _notes(
    run: RunFolder, source: ExplorerSource, made: Sequence[_Entry], missing: str
) -> list[tuple[str, str]]:
    """What is not there, and why as far as that can be told."""
    notes = []
    if source.dataset is None:
        notes.append(("warning", f"Images, true outlines and errors are not shown. {missing}"))
    if source.masks is None:
        text = (
            f"{run.oof.name}/masks is not here (a published run comes without), so predicted outlines and "
            f"errors are not shown. Make them again with: cellflow oof {run_word(run)}"
        )
        notes.append(("warning", text))
    if source.flows is None:
        why = "is not here (cellflow prune --flows removes it, and a published run comes without)"
        if run.flows.exists():
            why = "cannot be read"
        text = f"{run.oof.name}/{run.flows.name} {why}, so there are no layers of flows."
        notes.append(("note", text))
    lost = [entry for entry in made if entry.made.problem]
    if lost:
        text = f"{len(lost)} of {len(made)} images cannot be shown; each says why."
        notes.append(("warning", text))
    return notes


@dataclass(frozen=True)
class _Entry:
    """The files of an image."""

    number: int
    key: str
    made: MadeImage


@dataclass(frozen=True)
class _Folder:
    """The folder beside the page."""

    path: Path
    source: ExplorerSource

    def write(self, names: Sequence[str]) -> list[_Entry]:
        """Make the files of all images that were not made before."""
        restore_folder(self.path)  # also where nothing is written below
        old = self._read()
        keys = [self.source.key(name) for name in names]
        if list(old) == keys and all(self._stands(entry) for entry in old.values()):
            return list(old.values())
        with atomic_folder(self.path, replace=True) as folder:

            def entry(number: int) -> _Entry:
                key = keys[number - 1]
                if key in old and self._keep(old[key], number, folder):
                    return _Entry(number, key, old[key].made)
                made = self.source.make(names[number - 1], number, key, folder)
                return _Entry(number, key, made)

            entries = _in_threads(entry, range(1, len(names) + 1))
            write_json(folder / INDEX, {"images": [dataclasses.asdict(item) for item in entries]})
        return entries

    def image(self, row: Mapping[Hashable, Any], entry: _Entry) -> ExplorerImage:
        """An image for the page."""
        thumbnail = self.path / picture_name(entry.number, "thumb")
        return ExplorerImage(
            str(row["id"]), int(row["fold"]), str(row.get("cell_type") or ""), entry.number, entry.key,
            scores={name: _whole(row.get(name)) for name in _SCORES},
            thumbnail="" if entry.made.problem else address_of(thumbnail.read_bytes()),
            **vars(entry.made),
        )  # fmt: skip

    def _read(self) -> dict[str, _Entry]:
        """What is there, by key; nothing where it cannot be read."""
        facts = read_json(self.path / INDEX)
        if facts is None and self.path.is_dir() and any(self.path.iterdir()):
            raise DataError(
                f"{self.path}: expected nothing, or the files of an earlier report (with {INDEX}), found something "
                "else. Move it away, and write the report again.",
                path=self.path,
            )
        entries = {}
        with suppress(LookupError, TypeError, ValueError, AttributeError, OverflowError):
            for item in dict_or_empty(facts).get("images", []):
                made = MadeImage(**item["made"])
                made = dataclasses.replace(
                    made, size=(made.size[0], made.size[1]), layers=tuple(made.layers)
                )
                entries[str(item["key"])] = _Entry(int(item["number"]), str(item["key"]), made)
        return entries

    def _stands(self, entry: _Entry) -> bool:
        return all((self.path / name).is_file() for name in entry.made.files(entry.number))

    def _keep(self, entry: _Entry, number: int, folder: Path) -> bool:
        """Take over the files of an image, if they are there; False where it has another number, which they say."""
        if entry.number != number or not self._stands(entry):
            return False
        for name in entry.made.files(number):
            _link(self.path / name, folder / name)
        return True


def _in_threads(work: Callable[[int], _Entry], numbers: range) -> list[_Entry]:
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        try:
            return list(follow(pool.map(work, numbers), "explorer", len(numbers), brief=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _link(path: Path, target: Path) -> None:
    """The same file once more; a copy where the disk knows no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _whole(value: Any) -> float | int | None:
    """A number of a table; counts as whole numbers."""
    number = plain(None if value is None or pd.isna(value) else value)
    return int(number) if isinstance(number, float) and number.is_integer() else number

"""Where things lie inside a run: the only module that knows these paths."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cellflow.errors import RunError
from cellflow.storage.atomic import restore_folder, write_text
from cellflow.storage.hashing import hash_bytes
from cellflow.storage.records import load_yaml

__all__ = [
    "FoldFolder",
    "RunFolder",
    "debug_name",
    "ensemble_record",
    "final_name",
    "find_run",
    "first_length",
    "former_hashes",
    "is_final_record",
    "joined_name",
    "vouching_folder",
]

_SECTIONS = ("model", "optim", "sampling", "mask")
"""Groups of settings in the config of a record."""
_MAX_FOLDS = 10_000
_LONGEST = 200
"""Bytes of a name that is joined of several: file systems take 255, with what is added while it is written."""
_RECORD = {"data": str, "data_hash": str, "folds_hash": str, "folds": list, "config": dict}
"""What a record holds at least, and of which type."""


class _Place:
    """Where something lies in a folder, by its name there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: FoldFolder | RunFolder | None, kind: object = None) -> Path:
        if folder is None:  # of the class, which lies nowhere
            raise AttributeError(self._name)
        return folder.path / self._name


@dataclass(frozen=True)
class FoldFolder:
    """Files of one fold of a run."""

    path: Path

    best = _Place("best.pt")
    """Best model, a file that Cellpose 3 loads."""
    last = _Place("last.pt")
    """Full training state after the last saved step."""
    history = _Place("history.csv")
    """Losses, learning rate, score and speed, a row per epoch."""
    evaluations = _Place("evaluations.csv")
    """Scores per image, a row per image and evaluation."""
    samples = _Place("samples.csv")
    """What became of every image in the training: it trains, validates, or is left out."""
    good = _Place("good.pt")
    """The state before steps began to fail; there only while they do."""
    plot = _Place("history.png")
    """Curves of the history."""
    true_batch = _Place("val_batch_truth.png")
    """Some validation images with their true cells."""
    predicted_batch = _Place("val_batch_predicted.png")
    """The same images with the cells that the last evaluation predicted."""
    summary = _Place("summary.json")
    """How the training ended, JSON: finished or not, best epoch and score, what happened on the way."""
    styles = _Place("styles.json")
    """What the best model's style vectors say of cell type and diameter, JSON."""
    log = _Place("log.txt")
    """What was said while training."""
    lock = _Place(".lock")
    """File that a trainer of this fold holds a lock on."""


@dataclass(frozen=True)
class RunFolder:
    """Files of one run."""

    path: Path

    record_path = _Place("config.yaml")
    """Config of the run with the hashes of data and folds, YAML."""
    folds = _Place("folds.csv")
    """The run's own copy of the split."""
    cv = _Place("cv.csv")
    """Cross-validation scores per fold, per cell type and overall."""
    oof = _Place("oof")
    """Folder of out-of-fold predictions."""
    flows = _Place("oof/flows.zarr")
    """Flows of the out-of-fold predictions."""
    scores = _Place("oof/scores.csv")
    """Scores of the out-of-fold predictions, a row per image."""
    oof_record = _Place("oof/oof.json")
    """What made the out-of-fold predictions, JSON."""
    report_files = _Place("report-files")
    """Pictures and outlines that the report shows when asked for, beside it."""
    thresholds = _Place("thresholds.json")
    """Calibrated thresholds, JSON."""
    calibration = _Place("calibration")
    """Folder of what `cellflow calibrate` draws and tabulates."""
    report = _Place("report.html")
    """The page that shows the run, HTML."""
    audit_page = _Place("audit.html")
    """Suspected annotations, to be looked at and marked, HTML."""
    audit_table = _Place("audit.csv")
    """All of them, CSV."""
    metadata = _Place("metadata.json")
    """What there is to know of the run, in one JSON file."""
    tracking = _Place("tracking.json")
    """Settings of the trackers and links to what they keep, JSON."""
    publication = _Place("publication.json")
    """Where the run was published, JSON."""
    environment = _Place("environment.json")
    """Host that the run was started on, JSON."""
    journal = _Place("events.jsonl")
    """What happened, one JSON object a line."""
    debug_data = _Place("data")
    """Dataset of the few images of a debug run."""
    debug_images = _Place("images.txt")
    """List of the few images that a debug run predicts."""
    lock = _Place(".lock")
    """File that a process working on the whole run holds a lock on."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    def settings(self, command: str) -> Path:
        """Settings of the last command of a kind, YAML; ``cellflow COMMAND --config`` runs them again."""
        return self.path / f"{command}.yaml"

    def fold(self, fold: int) -> FoldFolder:
        """Folder of one fold."""
        return FoldFolder(self.path / f"fold_{fold}")

    def fold_folders(self) -> list[FoldFolder]:
        """Folders of folds that are there, whatever the record says."""
        found = [path for path in self.path.glob("fold_*") if path.is_dir()]
        found.sort(key=lambda path: (len(path.name), path.name))  # fold_10 after fold_2
        return [FoldFolder(path) for path in found]

    def exists(self) -> bool:
        """Whether a run has a record here."""
        return self.record_path.is_file()

    def stands_here(self) -> bool:
        """Whether this is a run, and not some folder that holds a ``config.yaml`` of another program."""
        return self.exists() and (self.folds.is_file() or any(self.path.glob("fold_*")))

    def has_progress(self) -> bool:
        """Whether any fold has got as far as saving something."""
        return any(self.path.glob("fold_*/*.pt"))

    def write_record(self, record: dict[str, Any]) -> None:
        """Write the config and the hashes of what the run was started with."""
        write_text(self.record_path, yaml.safe_dump(record, sort_keys=False))

    def read_record(self) -> dict[str, Any]:
        """Read what the run was started with.

        Raises
        ------
        RunError
            If it cannot be read.
        """
        try:
            # As JSON has it: YAML knows dates, sets and keys that no setting has.
            record = json.loads(json.dumps(load_yaml(self.record_path)))
        except (OSError, ValueError, TypeError) as error:
            message = f"{self.record_path} cannot be read: {error}"
            raise RunError(message, path=self.record_path) from None
        wrong = _record_problem(record)
        if wrong:
            text = (
                f"{self.record_path} is not the record of a cellflow run: expected {wrong}. "
                "Put the original back, or train under another --name."
            )
            raise RunError(text, path=self.record_path, expected=wrong)
        return dict(record)


def _record_problem(record: Any) -> str:
    """What is expected of a record and not there; empty where all is."""
    for key, kind in _RECORD.items():
        if not isinstance(record, dict) or not isinstance(record.get(key), kind):
            return f"{key} to be a {kind.__name__}"
    for name in _SECTIONS:
        if not isinstance(record["config"].get(name, {}), dict):
            return f"{name} in config to be a dict"
    numbers = all(type(fold) is int and 0 <= fold < _MAX_FOLDS for fold in record["folds"])
    if not record["folds"] or not numbers:
        return f"numbers of folds, found {record['folds']!r:.80}"
    return "data to be a path" if "\0" in record["data"] else ""


def former_hashes(record: Mapping[str, Any]) -> list[str]:
    """Hashes of the configs that a run had before it was lengthened, from its record."""
    return [str(item.get("config_hash")) for item in _former(record)]


def first_length(record: Mapping[str, Any]) -> int | None:
    """Epochs that a run was started for at first, whatever it was lengthened to since."""
    lengths = [item.get("n_epochs") for item in _former(record)]
    lengths.append(record["config"].get("optim", {}).get("n_epochs"))
    return lengths[0] if type(lengths[0]) is int else None


def _former(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run was before each time that it was lengthened."""
    former = record.get("lengthened")
    items = former if isinstance(former, list) else []
    return [item for item in items if isinstance(item, dict)]


def find_run(name: str | None, runs_dir: Path, *, begun: bool = True) -> RunFolder:
    """A run by its folder, by its name under `runs_dir`, or the newest one: of those that have saved something,
    or, unless it need be `begun`, of all.

    Raises
    ------
    RunError
        If there is no such run; the message lists those there are.
    """
    known = sorted(runs_dir.glob("*/config.yaml"), key=_modified)
    if name is None:
        known = [path for path in known if not begun or RunFolder(path.parent).has_progress()]
        if not known:
            text = f"No run with a trained model in {runs_dir}. Start one with: cellflow train --fold all"
            raise RunError(text, path=runs_dir)
        return _restored(RunFolder(known[-1].parent))
    for candidate in (RunFolder(runs_dir / name), RunFolder(Path(name).resolve())):
        if candidate.exists():
            return _restored(candidate)
    names = sorted(path.parent.name for path in known)
    near = difflib.get_close_matches(Path(name).name, names, 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    text = (
        f"No run {name!r}: expected a run folder, or one of those in {runs_dir}: "
        f"{', '.join(names) or 'none'}.{meant}"
    )
    raise RunError(text, path=runs_dir, expected=names, found=name)


def _modified(path: Path) -> float:
    """When a file was written; 0 where it went since it was listed."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def _restored(run: RunFolder) -> RunFolder:
    """With the out-of-fold predictions back that a killed replacement had moved away."""
    restore_folder(run.oof)
    return run


DEBUG, FINAL = "-debug", "-final"
"""Endings of the names of debug runs, and of runs of one network on all images."""


def debug_name(name: str) -> str:
    """What the debug run of an experiment is called."""
    return name if name.endswith(DEBUG) else name + DEBUG


def final_name(name: str) -> str:
    """What the run of one network on all images is called, beside the run whose folds vouch for it."""
    return name if name.endswith(FINAL) else name + FINAL


def is_final_record(record: Mapping[str, Any] | None) -> bool:
    """Whether a run, by its record, is one network on all images, of which no score is honest."""
    return record is not None and record["config"].get("final") is True


def vouching_folder(run: RunFolder) -> RunFolder:
    """Where the run lies whose folds vouch for a final one."""
    stem = run.name.removesuffix(DEBUG)
    return RunFolder(run.path.parent / (stem.removesuffix(FINAL) + run.name[len(stem) :]))


def ensemble_record(ensembles_dir: Path, names: Iterable[str]) -> Path:
    """File with the members of an ensemble and the thresholds calibrated for them, in any order."""
    return ensembles_dir / joined_name(sorted(names)) / "ensemble.json"


def joined_name(names: Iterable[str], sign: str = "+") -> str:
    """Names of runs as one that a file or folder can have: of many the first, and a hash of all."""
    whole = sign.join(names)
    if len(whole.encode()) <= _LONGEST:
        return whole
    end = f"_{hash_bytes(whole.encode())[:8]}"
    return whole.encode()[: _LONGEST - len(end)].decode(errors="ignore") + end

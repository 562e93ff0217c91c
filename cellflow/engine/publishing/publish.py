"""Publish a run, or prepared data with its folds, as a dataset on Kaggle.

The dataset of a run is named after it and its CV, and the name is what makes two publications the same:
where a dataset of that name is, it gets a new version. Another CV is another dataset. So the address of
a dataset says what is in it, a submission keeps the models it was made with, and a notebook never gets
a worse model because somebody published. Who wants one address for a whole season gives --title.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cellflow import __version__
from cellflow.config import check_config
from cellflow.config.publishing import PublishConfig
from cellflow.engine.publishing.published_files import data_files, public_records, run_files
from cellflow.engine.publishing.wheels import collect_wheels
from cellflow.engine.runs.contents import check_models, read_table
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import find_oof_record
from cellflow.engine.runs.state import now_text
from cellflow.engine.runs.tracked_command import track_state
from cellflow.errors import ConfigError, RunError
from cellflow.io.dataset import Dataset, is_dataset
from cellflow.io.kaggle_datasets import Existing, KaggleDatasets, user_without_client
from cellflow.storage.atomic import scratch_folder, write_json
from cellflow.storage.hashing import hash_file
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["Publication", "dataset_title", "plan_publication", "publish"]

_log = logging.getLogger(__name__)

WHEELS = "wheels"
"""Folder of wheels in a published run."""


@dataclass(frozen=True)
class Publication:
    """What goes, or went, where.

    Attributes
    ----------
    title, slug : str
        Name of the dataset, and the same in its address.
    owner : str or None
        Kaggle user; None while that is not known.
    public : bool
        Whether everybody may see it.
    files : tuple of (str, int)
        Names in the dataset and bytes.
    url : str
        Address, once published.
    version : int or None
        Version of the dataset, once published.
    """

    title: str
    slug: str
    owner: str | None
    public: bool
    files: tuple[tuple[str, int], ...]
    url: str = ""
    version: int | None = None

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)

    @property
    def reference(self) -> str:
        """OWNER/SLUG."""
        return f"{self.owner or 'OWNER'}/{self.slug}"


def plan_publication(config: PublishConfig) -> Publication:
    """List exactly what `publish` would send; nothing is sent, and Kaggle is not asked.

    Wheels are collected all the same, as their number and size depend on the machine.
    """
    check_config(config)
    with TemporaryDirectory() as folder:
        return _plan(config, _subject(config), Path(folder))[0]


def publish(config: PublishConfig) -> Publication:
    """Create a dataset, or a new version of it. With ``dry_run`` the same as `plan_publication`.

    Files are staged in a folder beside the run, as links where the disk allows it, which is gone
    afterwards. A run keeps where it went in ``publication.json``.

    Raises
    ------
    ConfigError, RunError, DataError
        If a setting, the run or the dataset is not fit to be published.
    CellflowError
        If Kaggle's client or key is missing, or Kaggle refuses.

    Examples
    --------
    What would go to Kaggle; without ``dry_run`` it goes, with the key that is kept for Kaggle:

    >>> from cellflow import PublishConfig, publish
    >>> plan = publish(PublishConfig("exp", title="My cells", wheels="none", dry_run=True))
    >>> plan.reference, plan.public
    ('OWNER/my-cells', False)
    >>> [name for name, size in plan.files if name.endswith(".pt")]
    ['fold_0/best.pt', 'fold_1/best.pt']
    """
    if config.dry_run:
        return plan_publication(config)
    check_config(config)
    subject = _subject(config)
    with _staging(subject.path) as folder:
        kaggle = KaggleDatasets()  # before the work: a missing key is known at once
        plan, sources = _plan(config, subject, folder)
        plan = dataclasses.replace(plan, owner=config.owner or kaggle.user or None)
        if plan.owner is None:
            raise ConfigError("Kaggle does not say whose key this is; give the owner with --owner")
        existing = kaggle.find(plan.reference)
        _check_visibility(plan, existing)
        _stage(sources, folder)
        _log.info(
            "sending %d files, %.1f MiB, to %s", len(plan.files), plan.total / 2**20, plan.reference
        )
        if existing is None:
            version = 1
            url = kaggle.create(folder, plan.reference, title=plan.title, public=plan.public)
        else:
            version = existing.version + 1
            message = config.message or f"{plan.title}, cellflow {__version__}"
            url = kaggle.add_version(folder, plan.reference, title=plan.title, message=message)
    done = dataclasses.replace(plan, url=url, version=version)
    if isinstance(subject, RunFolder):
        _record(subject, done)
        track_state(subject, ensembles_dir=config.ensembles_dir)
    return done


def dataset_title(run: RunFolder) -> str | None:
    """Name of the dataset that a run was published as last, None before that."""
    title = (read_json(run.publication) or {}).get("title")
    return None if title is None else str(title)


def _subject(config: PublishConfig) -> RunFolder | Dataset:
    """What is to be published."""
    what = config.what
    is_data = what is not None and is_dataset(Path(what))
    if what is None or not is_data or RunFolder(config.runs_dir / what).exists():
        return find_run(what, config.runs_dir)
    if config.state or config.flows:
        raise ConfigError(f"--state and --flows are for runs; {what} is a dataset")
    return Dataset.open(Path(what))


def _plan(
    config: PublishConfig, subject: RunFolder | Dataset, folder: Path
) -> tuple[Publication, dict[str, Path]]:
    """What goes, and where each file is now; wheels are put into the folder."""
    if isinstance(subject, Dataset):
        _ = subject.hash  # raises where tables were changed by hand
        title = config.title or subject.path.resolve().name
        sources = data_files(subject)
    else:
        models = check_models(subject, unfinished=config.unfinished, partial=config.unfinished)
        title = config.title or f"{subject.name}_{_cv(subject, models):.4f}"
        sources = run_files(
            subject, models,
            ensembles_dir=config.ensembles_dir, state=config.state, flows=config.flows,
        )  # fmt: skip
        sources |= public_records(subject, folder)
        if config.wheels != "none":
            place = folder / WHEELS
            wheels = collect_wheels(place, which=config.wheels, python=config.wheels_python)
            sources |= {f"{WHEELS}/{path.name}": path for path in wheels}
    title = title.strip()
    files = tuple((name, path.stat().st_size) for name, path in sorted(sources.items()))
    owner = config.owner or user_without_client()
    return Publication(title, _slug(title), owner, config.public, files), sources


def _cv(run: RunFolder, models: Mapping[int, Path]) -> float:
    """The number that a run is named after: cross-fitted where it is calibrated, else best epoch."""
    remedy = f"Make it with: cellflow oof {run_word(run)}"
    if not run.cv.exists():
        raise RunError(
            f"Run {run.name!r} has no {run.cv.name} yet, and so no CV to be named after. {remedy}; "
            "or give the dataset a name with --title."
        )
    made = find_oof_record(run)
    if made is not None and set(made.models.values()) != set(map(hash_file, models.values())):
        raise RunError(
            f"{run.cv} was made with other models than those of the run now, and a name should not say "
            f"a wrong CV. {remedy}"
        )
    table = read_table(run.cv, ["scope", "best_epoch", "cross_fitted"], remedy=remedy)
    overall = table[table["scope"] == "overall"]
    values = overall[["cross_fitted", "best_epoch"]].to_numpy(float).ravel()
    known = values[~np.isnan(values)]
    if not len(known):
        raise RunError(f"{run.cv} has no overall score. {remedy}")
    return float(known[0])


def _slug(title: str) -> str:
    """A title as it stands in an address."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if not (6 <= len(slug) <= 50 and 6 <= len(title) <= 50):
        raise ConfigError(
            f"Kaggle wants names of 6 to 50 characters, letters and digits among them; {title!r} would "
            f"be {slug!r} in the address. Choose a name with --title."
        )
    return slug


def _check_visibility(plan: Publication, existing: Existing | None) -> None:
    """A version cannot change who sees a dataset, so what was asked for must be what it is."""
    if existing is None or existing.private is not plan.public:
        return
    if plan.public:
        raise ConfigError(
            f"{plan.reference} is private, and a new version does not change that. Make it public on its "
            "page, then repeat this; or leave out --public; or choose another --title."
        )
    raise ConfigError(
        f"{plan.reference} is public, so everybody would see the new version. Add --public if that is "
        "meant, or choose another --title."
    )


@contextlib.contextmanager
def _staging(beside: Path) -> Iterator[Path]:
    """An empty folder on the same disk, where links are possible, else in the system's own place."""
    beside = beside.resolve()
    here = os.access(beside.parent, os.W_OK)
    with scratch_folder(beside) if here else TemporaryDirectory() as outer:
        folder = Path(outer) / "dataset"  # a level down, where nobody looks for runs
        folder.mkdir()
        yield folder


def _stage(sources: Mapping[str, Path], folder: Path) -> None:
    for name, source in sources.items():
        path = folder / name
        if path == source:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.hardlink_to(source)
        except OSError:  # another disk, or one without links
            shutil.copy2(source, path)


def _record(run: RunFolder, done: Publication) -> None:
    """Keep in the run where it went."""
    facts = {"url": done.url, "title": done.title, "version": done.version}
    record = {"to": "kaggle", **facts, "date": now_text()}
    try:
        write_json(run.publication, record)
    except OSError as error:
        _log.warning("published, but %s could not be written: %s", run.publication, error)

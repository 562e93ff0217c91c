"""What to annotate next: images that the members are in doubt about and that are like no annotated one."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cellflow.config import EnsembleConfig, InferenceConfig, SuggestConfig, check_config
from cellflow.engine.pages.suggestion import Pool, Suggested, SuggestionFacts, write_suggestion
from cellflow.engine.prediction.candidates import (
    Known,
    Look,
    Screened,
    check_free,
    known_images,
    look_at,
    screen,
)
from cellflow.engine.prediction.ensemble import EnsembleJob, open_ensemble
from cellflow.engine.runs.contents import run_dataset, run_folds
from cellflow.engine.runs.next_command import run_word
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import RESERVED
from cellflow.io.pixel_limit import at_most
from cellflow.numeric.suggestion import (
    Choice,
    choose_images,
    distances_to_nearest,
    likeness,
    shares_below,
)
from cellflow.storage.atomic import atomic_folder
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.storage.sizes import few_lines, flag_text, plural
from cellflow.types import one_line

__all__ = ["SuggestResult", "suggest"]

MUCH = 2 / 3
"""Place among the candidates from which on a part is given as a reason."""
MAX_PROBLEMS = 20

_log = logging.getLogger(__name__)


@one_line
@dataclass(frozen=True)
class SuggestResult:
    """What is to be annotated next, and where it is written.

    Attributes
    ----------
    folder : Path
        Folder of the result.
    page : Path
        To look at.
    table : Path
        CSV with a row per suggested image, the best first.
    ids : list of str
        The suggested images, the best first.
    looked_at : int
        Images that the members have seen.
    left_out : dict of str to str
        Why images were passed over: annotated already, or forms of another one.
    failed : dict of str to str
        Why images could not be used.
    next : str
        What to type next.
    """

    folder: Path
    page: Path
    table: Path
    ids: list[str]
    looked_at: int
    left_out: dict[str, str]
    failed: dict[str, str]
    next: str


def suggest(config: SuggestConfig) -> SuggestResult:
    """Choose images to annotate next, with the reason of each, as a page and as tables.

    All members of a run look at each image. How far their masks are apart, and how unlike its style is to
    that of the nearest annotated image, say what there is to learn of it; which of them are taken one after the other
    is said at `choose_images`. Images that are annotated already are left out, and so are other forms of
    these and of one that is taken. The same call gives the same list, whatever the order of the files.

    Raises
    ------
    RunError, DataError, CheckpointError
        If there is no such run or image, the run's dataset is not where it was, or the result is there
        already.

    Examples
    --------
    With the run ``runs/exp`` and a folder of images, which are those it was trained on:

    >>> from pathlib import Path
    >>> from cellflow import SuggestConfig, suggest
    >>> result = suggest(SuggestConfig(run="exp", images=(Path("images"),), n=3))
    >>> result.ids, len(result.left_out)
    ([], 6)
    >>> result.page.as_posix()
    'suggestions/exp/suggest.html'
    """
    check_config(config)
    with at_most(config.files.max_pixels):
        return _suggest(config)


def _suggest(config: SuggestConfig) -> SuggestResult:
    job = open_ensemble(_as_ensemble(config))
    folder = config.out / (config.name or job.opened.name)
    check_free(folder, "suggest.csv", overwrite=config.overwrite)
    dataset, reserved = _annotated(config)
    known = known_images(dataset, job.segmenter, reserved)
    found = screen(job.images, known)
    looks = look_at(job.segmenter, job.images, found, title="looking")
    if found.failed:
        lines = few_lines((f"{name}: {text}" for name, text in found.failed.items()), MAX_PROBLEMS)
        _log.warning(
            "%d of %d images could not be used:\n%s", len(found.failed), len(job.images), lines
        )
    pool = _pool(looks, known)
    choices = _choose(pool, looks, known, found, config.n)
    chosen = [
        _suggested(job, looks, pool, known, choice, choices[:rank])
        for rank, choice in enumerate(choices)
    ]
    _leave_copies(found, looks, [item.id for item in chosen])
    try:
        word = run_word(find_run(config.run, config.runs_dir))
    except RunError:  # a file
        word = shlex.quote(config.run or "")
    command = (
        f"cellflow predict {shlex.quote(str(folder / 'chosen.txt'))} --model {word} --export seg "
        f"--name {shlex.quote(folder.name + '-to-annotate')}"
    )
    facts = SuggestionFacts(
        run=job.opened.name, members=len(job.opened.members), annotated=len(known.ids),
        wanted=config.n, images=len(job.images), chosen=chosen, pool=pool,
        left_out=found.left_out, failed=found.failed, command=command, made_by=_typed(config),
    )  # fmt: skip
    with atomic_folder(folder, replace=config.overwrite) as new:
        write_suggestion(new, facts, job.images)
    return SuggestResult(
        folder, folder / "suggest.html", folder / "suggest.csv", [item.id for item in chosen],
        len(looks), found.left_out, found.failed, command,
    )  # fmt: skip


def _as_ensemble(config: SuggestConfig) -> EnsembleConfig:
    return EnsembleConfig(
        images=config.images, runs=(config.run,) if config.run else (), runs_dir=config.runs_dir,
        unfinished=config.unfinished, files=config.files, runtime=config.runtime,
        inference=InferenceConfig(diameter=config.diameter, batch_size=config.batch_size),
    )  # fmt: skip


def _annotated(config: SuggestConfig) -> tuple[Dataset | None, list[str]]:
    """The dataset of the run, and the ids there that no fold trains on; a model file alone may have none."""
    run = _run_of(config)
    if run is not None:
        dataset = run_dataset(run, config.data)
        folds = run_folds(run, dataset)
        return dataset, [str(name) for name in folds.index[folds == RESERVED]]
    if config.data is not None:
        return Dataset.open(config.data), []
    _log.warning(
        "%s is no run, so what is annotated already is not known: give the dataset with --data",
        config.run,
    )
    return None, []


def _run_of(config: SuggestConfig) -> RunFolder | None:
    """The run that was named, or in which the model file lies; None for an archive or another file."""
    try:
        return find_run(config.run, config.runs_dir)
    except RunError:  # members were found before, so it is a file
        run = RunFolder(Path(config.run or "").resolve().parent.parent)
        return run if run.exists() else None


def _pool(looks: dict[str, Look], known: Known) -> Pool:
    """The candidates with what there is to learn of each: its doubt, and how unlike it is to what is annotated."""
    ids = list(looks)
    length = known.styles.shape[1]
    styles = np.stack([look.style for look in looks.values()]) if ids else np.zeros((0, length))
    doubt = np.array([look.doubt for look in looks.values()])
    trained = known.styles[known.trains]
    unlike, nearest = np.ones(len(ids)), np.full(len(ids), "", object)
    if len(ids) and len(trained):
        distance, which = distances_to_nearest(styles, trained)
        unlike = 1 - likeness(distance)
        names = np.array(known.ids, object)[known.trains]
        nearest = names[which]
    table = pd.DataFrame(
        {
            "doubt": doubt,
            "doubt_place": shares_below(doubt),
            "unlike": unlike,
            "unlike_place": shares_below(unlike),
            "nearest": nearest,
            "cell_type": [look.cell_type for look in looks.values()],
            "cells": [look.cells for look in looks.values()],
        },
        index=pd.Index(ids, name="id", dtype=str),
    )
    return Pool(table, styles.astype(np.float32), known.styles, known.ids)


def _choose(
    pool: Pool, looks: dict[str, Look], known: Known, found: Screened, count: int
) -> list[Choice]:
    at = {name: place for place, name in enumerate(looks)}
    table = pool.table
    return choose_images(
        pool.styles,
        (table["doubt"] + table["unlike"]).to_numpy() / 2,
        known=known.styles[known.trains],
        types=table["cell_type"].tolist(),
        copies=[(at[one], at[other]) for one, other in found.copies if {one, other} <= at.keys()],
        count=count,
    )


def _suggested(
    job: EnsembleJob,
    looks: dict[str, Look],
    pool: Pool,
    known: Known,
    choice: Choice,
    before: list[Choice],
) -> Suggested:
    """One suggested image with the reason in words."""
    row = pool.table.iloc[choice.place]
    name = str(pool.table.index[choice.place])
    types = {pool.table["cell_type"].iat[item.place] for item in before}
    reasons = []
    if row["doubt_place"] >= MUCH:
        members = len(job.opened.members)
        what = f"the {members} models see different cells" if members > 1 else "the model is unsure"
        reasons.append(f"{what}, {_more_than(row['doubt_place'])}")
    if row["unlike_place"] >= MUCH and row["nearest"]:
        reasons.append(f"unlike what is annotated, {_more_than(row['unlike_place'])}")
    if choice.nearer:
        reasons.append(f"stands for {plural(choice.nearer, 'other image')}")
    if row["cell_type"] and row["cell_type"] not in types:
        reasons.append(f"the first of type {row['cell_type']}")
    if not reasons:
        reasons.append("what is left differs little: nothing stands out in it")
    look = looks[name]
    text = "; ".join(reasons)
    return Suggested(
        name, job.images[name].path.absolute(), choice, text[0].upper() + text[1:] + ".",
        look.outlines, look.shape,
    )  # fmt: skip


def _more_than(place: float) -> str:
    """A place among the images in words; 99.6 % are not all of them."""
    if place == 1:
        return "the most of all images"
    return f"more than {min(place, 0.99):.0%} of the images"


def _leave_copies(found: Screened, looks: dict[str, Look], chosen: list[str]) -> None:
    """Say of which taken image those are forms that could not be taken for that."""
    for taken in chosen:
        for pair in sorted(found.copies):
            if taken in pair:
                other = pair[pair[0] == taken]
                if other in looks and other not in chosen:
                    found.left_out.setdefault(
                        other, f"is another form of a suggested image: {taken}"
                    )


def _typed(config: SuggestConfig) -> str:
    """The command as it may be typed again, where --overwrite is added."""
    usual = SuggestConfig(images=config.images)
    flags = {
        "--data": config.data, "--name": config.name, "--diameter": config.diameter,
        "--runs_dir": None if config.runs_dir == usual.runs_dir else config.runs_dir,
        "--out": None if config.out == usual.out else config.out,
        "--unfinished": config.unfinished or None, "--recursive": config.files.recursive or None,
        "--img_filter": config.files.img_filter or None,
    }  # fmt: skip
    words = ["suggest", *([config.run] if config.run else []), "--images", *map(str, config.images)]
    words += ["--n", str(config.n)]
    given = {flag: value for flag, value in flags.items() if value is not None}
    more = [flag if value is True else flag_text(flag, str(value)) for flag, value in given.items()]
    return " ".join([shlex.join(["cellflow", *words]), *more])

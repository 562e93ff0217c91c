"""`cellflow verify` of a run, from its files alone: no image was predicted by a model that saw it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from cellflow.config import VerifyConfig
from cellflow.engine.data.findings import Verification, in_order
from cellflow.engine.data.folds import image_groups
from cellflow.engine.data.verify_folds import OVER_FOLDS, leak_findings
from cellflow.engine.runs.contents import is_final_model, misfits, model_facts, read_table
from cellflow.engine.runs.sample_list import TRAINS, VALIDATES, ids_hash, read_sample_list
from cellflow.engine.validation.run_files import RunFiles
from cellflow.engine.validation.verify_oof import check_oof
from cellflow.engine.validation.verify_thresholds import check_thresholds
from cellflow.errors import CheckpointError, DataError, FoldError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import RESERVED, fold_table_hash, read_fold_table
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder
from cellflow.storage.sizes import few_text, plural

__all__ = ["verify_run"]

KINDS = (
    "damaged",
    "other split",
    OVER_FOLDS,
    "other data",
    "other model",
    "seen in training",
    "not out of fold",
    "other result",
    "other thresholds",
    "not there",
)


def verify_run(run: RunFolder, config: VerifyConfig) -> Verification:
    """Check that a run's files belong together, and that its out-of-fold predictions are just that.

    Folds are disjoint and complete, groups whole; each model bears the hashes of the run's data and split and
    was trained on no image of its fold; each out-of-fold row is of the fold whose model made its flows, by the
    hash of the model file; masks, runs of pixels and scores are those that the flows give; thresholds were
    fitted on flows of these models, and the cross-fitted scores with those of the other folds.

    Parameters
    ----------
    run : RunFolder
        The run, however far it has come.
    config : VerifyConfig
        Where its data is, if not where it was.

    Raises
    ------
    RunError, FoldError
        If its record or its split cannot be read.
    """
    files = RunFiles(run, run.read_record(), read_fold_table(run.folds))
    facts = {"run": f"{run.path}, {plural(len(files.folds), 'image')}"}
    checks: dict[str, Callable[[], str]] = {
        "data": lambda: _check_data(files, config.data),
        "split": lambda: _check_split(files),
        "models": lambda: _check_models(files),
        "training": lambda: _check_training(files),
        "rows": lambda: check_oof(files),
        "thresholds": lambda: check_thresholds(files),
    }
    for name, check in checks.items():
        before = len(files.findings)
        text = check()
        wrong = sum(item.wrong for item in files.findings[before:])
        facts[name] = f"{text}; {plural(wrong, 'problem')}" if wrong else text
    return Verification(run.path, facts, in_order(files.findings, KINDS))


def _check_data(files: RunFiles, data: Path | None) -> str:
    path = data if data is not None else Path(files.record["data"])
    if not path.exists():
        files.note("data", f"nothing is at {path}; groups, scores and cells need it: say --data")
        return "not found, so groups and scores are not checked"
    try:
        dataset = Dataset.open(path)
        found = dataset.hash
    except DataError as error:
        files.wrong("other data", str(path), error)
        return str(path)
    expected = files.record["data_hash"]
    if found != expected:
        reason = (
            f"not the data that the run was trained on: expected hash {expected}, found {found}"
        )
        files.wrong("other data", str(path), reason)
        return str(path)
    files.dataset = dataset
    return f"{path}, the very images and cells of the training"


def _check_split(files: RunFiles) -> str:
    run, found = files.run, fold_table_hash(files.folds)
    if found != files.record["folds_hash"]:
        moved = _moved(files)
        which = f": {few_text(moved)}" if moved else ""
        files.wrong("other split", "folds.csv", f"was changed after the run was started{which}")
    numbers = sorted(set(files.folds) - {RESERVED})
    lacking = sorted(set(files.record["folds"]) - set(numbers))
    if lacking:
        files.wrong("other split", "folds.csv", f"has no fold {', '.join(map(str, lacking))}")
    reserved = len(files.of(RESERVED))
    text = f"folds {' '.join(map(str, numbers))}, each image in one of them"
    text += f", {reserved} reserved" if reserved else ""
    if files.dataset is None:
        return text
    try:
        read_fold_table(run.folds, files.dataset.ids)
        files.findings += leak_findings(files.dataset, run.folds, {})
        return f"{text}, {plural(image_groups(files.dataset, run.folds).nunique(), 'group')} whole"
    except FoldError as error:
        files.wrong("other split", "folds.csv", error)
        return text


def _moved(files: RunFiles) -> list[str]:
    """Images that folds.csv has in another fold than validated on them, in words."""
    moved = []
    for fold in files.record["folds"]:
        for name in _evaluated(files.run, fold):
            now = files.folds.get(name)
            if now != fold:
                where = "is gone" if now is None else f"is in fold {now}"
                moved.append(f"{name} {where}, but fold {fold} was validated on it")
    return moved


def _evaluated(run: RunFolder, fold: int) -> list[str]:
    """Images that a fold's evaluations are of; none where the table cannot be read."""
    try:
        return sorted(set(read_table(run.fold(fold).evaluations, ["epoch", "id", "score"])["id"]))
    except RunError:
        return []


def _check_models(files: RunFiles) -> str:
    for fold in files.record["folds"]:
        path = files.run.fold(fold).best
        if not path.is_file():
            files.note(_file(fold, "best.pt"), f"fold {fold} has no model yet")
            continue
        files.models[fold] = hash_file(path)
        try:
            facts = model_facts(path)
        except CheckpointError as error:
            files.wrong("damaged", _file(fold, "best.pt"), error)
            continue
        files.facts[fold] = facts
        for reason in misfits(facts, fold, files.record):
            files.wrong("other model", _file(fold, "best.pt"), reason)
    count = plural(len(files.record["folds"]), "fold")
    return f"{len(files.models)} of {count}, each by its hashes of the run's data, split, fold and settings"


def _check_training(files: RunFiles) -> str:
    parts = []
    for fold in files.models:
        _check_evaluations(files, fold)
        trained = _check_samples(files, fold)
        count = "?" if trained is None else str(len(trained))
        parts.append(f"fold {fold} trained on {count}, validated on {len(files.of(fold))}")
    return "; ".join(parts) or "none yet"


def _check_samples(files: RunFiles, fold: int) -> list[str] | None:
    """The images a fold was trained on, as the training listed them: none is of the fold, or reserved."""
    path, name = files.run.fold(fold).samples, _file(fold, "samples.csv")
    known = files.facts.get(fold, {}).get("samples_hash")
    if not path.is_file():
        why = "is gone" if known else "is not written by the cellflow that trained this fold"
        files.note(name, f"the list of images that it was trained on {why}")
        return None
    try:
        roles = read_sample_list(path)
    except DataError as error:
        files.wrong("damaged", name, error)
        return None
    trained = [str(image) for image in roles.index[roles == TRAINS]]
    final = is_final_model(files.facts.get(fold, {}))
    _forbidden(files, fold, trained, final=final)
    if known is not None and known != ids_hash(trained):
        files.wrong("other model", name, "best.pt was trained on other images than are listed here")
    if not final:  # what validates it trains it too
        _other_images(files, name, set(roles.index[roles == VALIDATES]), fold)
    return trained


def _forbidden(files: RunFiles, fold: int, trained: list[str], *, final: bool) -> None:
    """Images that a fold's model was trained on and must not have seen: of a final one only those reserved."""
    for name in trained:
        there = files.folds.get(name)
        if there == RESERVED or (there == fold and not final):
            where = "reserved" if there == RESERVED else f"in fold {fold}"
            files.wrong(
                "seen in training", name, f"it is {where}, and fold {fold} was trained on it"
            )


def _check_evaluations(files: RunFiles, fold: int) -> None:
    """A fold's evaluations are of its own images, all of them every time."""
    name = _file(fold, "evaluations.csv")
    try:
        table = read_table(files.run.fold(fold).evaluations, ["epoch", "id", "score", "weights"])
    except RunError as error:
        files.wrong("damaged", name, error)
        return
    _other_images(files, name, set(table["id"]), fold)
    counts = table.groupby(["epoch", "weights"])["id"].agg(["size", "nunique"])
    uneven = counts[
        (counts["size"] != table["id"].nunique()) | (counts["size"] != counts["nunique"])
    ]
    for epoch, weights in uneven.index:
        reason = f"expected each image once in the evaluation of epoch {epoch:g} ({weights})"
        files.wrong("other split", name, reason)


def _other_images(files: RunFiles, name: str, found: Collection[str], fold: int) -> None:
    own = set(files.of(fold))
    more, lacking = sorted(set(found) - own), sorted(own - set(found))
    if more:
        files.wrong(
            "other split", name, f"has images that are not in fold {fold}: {few_text(more)}"
        )
    if lacking:
        files.wrong("other split", name, f"lacks images of fold {fold}: {few_text(lacking)}")


def _file(fold: int, name: str) -> str:
    return f"fold_{fold}/{name}"

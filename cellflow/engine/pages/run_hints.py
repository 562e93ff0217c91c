"""What there is to say of a run in plain words, from its files alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from cellflow.engine.runs.contents import vouching_run
from cellflow.engine.runs.next_command import named_folds, run_word, train_command
from cellflow.engine.runs.state import RunState
from cellflow.errors import CellflowError
from cellflow.numeric.bootstrap import MIN_GROUPS
from cellflow.report.pages.run_facts import FoldFacts, Hint, RunFacts, ThresholdFacts
from cellflow.storage.records import number_or_none
from cellflow.storage.run_folder import RunFolder, is_final_record

__all__ = ["COSTLY", "FAR_BELOW", "LARGE_BIAS", "OVERFIT", "run_hints"]

FAR_BELOW = 0.05
"""A fold, or a type, this far below the others is named."""
OVERFIT = 0.02
"""The score of the last evaluation this far below the best one, with a rising loss, is overfitting."""
LARGE_BIAS = 0.01
"""A selection bias above this is named."""
COSTLY = 0.002
"""What a threshold that swings must cost, on the curve of all images, to be a warning."""


def run_hints(run: RunFolder, state: RunState, facts: RunFacts) -> list[Hint]:
    """What to look at, and what is fine; the worst first."""
    found = [*_of_the_state(run, state, facts)]
    for fold in facts.folds:
        found += _of_the_course(fold)
    if facts.cv is not None:
        found += _of_the_scores(facts.cv)
    if facts.scores is not None:
        found += _of_the_cells(facts.scores, calibrated=facts.thresholds is not None)
    if facts.thresholds is not None:
        found += _of_the_thresholds(facts.thresholds)
    order = {"warning": 0, "note": 1, "good": 2}
    if not any(kind == "warning" for kind, _ in found) and state.status == "calibrated":
        found.append(
            ("good", "All folds are trained, predicted and calibrated; nothing stands out.")
        )
    return sorted(found, key=lambda item: order[item[0]])


def _of_the_state(run: RunFolder, state: RunState, facts: RunFacts) -> Iterator[Hint]:
    """What is missing, and what belongs to other models."""
    for problem in facts.problems:
        yield "warning", f"A file cannot be read, and what it holds is not shown. {problem}"
    if state.record is not None and state.problem:
        yield "warning", state.problem
    if facts.debug:
        yield "warning", "This is a debug run: few images, few steps. Its scores mean nothing."
    left = [fold.fold for fold in state.folds if not fold.complete]
    if left:
        yield "warning", _unfinished(run, left, facts.folds)
        return
    if is_final_record(state.record):
        yield (
            "note",
            "This network has seen all images of its dataset, so no score of it is honest, and those while training "
            f"least of all. {_vouching_text(run)}",
        )
    elif facts.scores is None and state.record is not None:
        yield (
            "note",
            "There are no out-of-fold predictions yet, so no honest score: scores while training are of "
            f"images on which the epoch is chosen. Next: cellflow oof {run_word(run)}",
        )
    elif facts.scores is not None and not state.predicted:
        yield (
            "warning",
            "The out-of-fold predictions are not of the models that are there now, so their score is not "
            f"that of this run. Make them again: cellflow oof {run_word(run)}",
        )
    elif facts.thresholds is None and state.predicted:
        yield (
            "note",
            f"Thresholds are those of the training. Next: cellflow calibrate {run_word(run)}",
        )


def _vouching_text(run: RunFolder) -> str:
    vouching = vouching_run(run)
    if vouching is None:
        return "No run beside it with the same settings vouches for it."
    return f"The folds of run {vouching.name!r} vouch for it."


def _unfinished(run: RunFolder, left: Sequence[int], folds: Sequence[FoldFacts]) -> str:
    running = [item.fold for item in folds if item.state == "running"]
    text = f"Not trained to the end: {named_folds(left)}."
    if running:
        return f"{text} In training now: {named_folds(running)}."
    try:
        return f"{text} Go on with: {train_command(run, left)}"
    except CellflowError:  # a damaged record, which is told by itself
        return text


def _of_the_course(fold: FoldFacts) -> Iterator[Hint]:
    """Overfitting, a training that was too short, steps that failed."""
    evaluated = _evaluated(fold.history)
    if len(evaluated) > 2:
        best = float(evaluated["score"].max())
        last = evaluated.iloc[-1]
        lost = best - float(last["score"])
        losses = evaluated["val_loss"].dropna()
        rising = len(losses) > 2 and float(losses.iloc[-1]) > 1.05 * float(losses.min())
        if lost > OVERFIT and rising:
            yield (
                "warning",
                f"Fold {fold.fold} overfits: its score fell by {lost:.3f} from its best, {best:.3f}, to the "
                f"last evaluation, and its validation loss rose from {losses.min():.3f} to "
                f"{losses.iloc[-1]:.3f}. The best epoch is kept; more images, more augmentation or fewer "
                "epochs may help.",
            )
        elif fold.ended == "epochs" and float(last["score"]) >= best:
            yield (
                "note",
                f"Fold {fold.fold} was best at its last evaluation: more epochs may still help.",
            )
    if fold.skipped_steps:
        yield (
            "warning",
            f"Fold {fold.fold}: {fold.skipped_steps} steps were left out, because their gradients were not "
            "finite. A lower learning rate, or --amp off, may help.",
        )


def _evaluated(history: pd.DataFrame) -> pd.DataFrame:
    """Epochs with an evaluation: score (of the average of the weights where it is there), val_loss."""
    columns = [name for name in ("val_score", "val_score_ema") if name in history]
    if not columns or "val_loss" not in history:
        return pd.DataFrame({"score": [], "val_loss": []})
    score = history[columns].apply(pd.to_numeric, errors="coerce").max(axis=1)
    losses = pd.to_numeric(history["val_loss"], errors="coerce")
    return pd.DataFrame({"score": score, "val_loss": losses}).dropna(subset=["score"])


def _of_the_scores(cv: pd.DataFrame) -> Iterator[Hint]:
    """Folds and types far below the others, few groups, a large bias."""
    for scope, what in (("fold", "Fold {}"), ("cell_type", "Cell type {}")):
        yield from _far_below(cv[cv["scope"] == scope], what)
    for row in cv[cv["scope"] == "overall"].to_dict("records"):
        groups, bias = (number_or_none(row.get(key)) for key in ("groups", "selection_bias"))
        if groups is not None and groups < MIN_GROUPS:
            yield (
                "note",
                f"There are {groups:g} groups of images; with fewer than {MIN_GROUPS} an interval says "
                "little of how groups differ.",
            )
        if bias is not None and bias > LARGE_BIAS:
            yield (
                "note",
                f"Choosing the best epoch flatters by {bias:.3f}: do not quote the score of the best epoch "
                "without taking that off.",
            )


def _far_below(rows: pd.DataFrame, what: str) -> Iterator[Hint]:
    """The worst of several, where it is far below the mean of the images of the others."""
    if len(rows) < 2 or not {"name", "images", "best_epoch"} <= set(rows):
        return
    values = (
        rows["expected"].fillna(rows["best_epoch"]) if "expected" in rows else rows["best_epoch"]
    )
    if values.isna().all():
        return
    place = int(values.argmin())
    worst, images = float(values.iloc[place]), rows["images"].drop(index=rows.index[place])
    mean = float((values.loc[images.index] * images).sum() / images.sum())
    if mean - worst < FAR_BELOW:
        return
    row = rows.iloc[place]
    high = number_or_none(row.get("high"))
    sure = high is not None and high < mean
    name = what.format(str(row["name"]) or "(none)")
    text = f"{name} scores {mean - worst:.3f} below the others ({worst:.3f} against {mean:.3f})"
    if sure:
        yield "warning", f"{text}, more than its interval explains. Look at its images."
    else:
        yield "note", f"{text}, which its interval does not rule out as chance."


def _of_the_cells(scores: pd.DataFrame, *, calibrated: bool) -> Iterator[Hint]:
    """Whether cells are missed or invented."""
    if not {"n_missed", "n_false"} <= set(scores):
        return
    missed, false = (float(scores[key].sum()) for key in ("n_missed", "n_false"))
    if min(missed, false) < 0 or missed + false < 20:
        return
    if missed > 2 * false:
        yield (
            "note",
            f"More cells are missed ({missed:.0f}) than invented ({false:.0f}). "
            + (
                "Calibrated thresholds have weighed that up already; look at what is missed."
                if calibrated
                else "A lower cellprob threshold, or a higher flow threshold, finds more; calibration weighs that up."
            ),
        )
    elif false > 2 * missed:
        yield (
            "note",
            f"More cells are invented ({false:.0f}) than missed ({missed:.0f}): a higher cellprob threshold, "
            "or annotations that lack cells, may be why.",
        )


def _of_the_thresholds(found: ThresholdFacts) -> Iterator[Hint]:
    """Thresholds that differ with the fold that is left out."""
    for item in found.swings:
        if not item["swings"]:
            continue
        kind = "warning" if item["costs"] > COSTLY else "note"
        yield kind, f"{_swing_text(item)} {_ADVICE[kind]}"


def _swing_text(item: Mapping[str, Any]) -> str:
    values = ", ".join(
        f"{_value(item['threshold'], value)} without fold {fold}"
        for fold, value in item["values"].items()
    )
    return (
        f"The {item['threshold']} swings from fold to fold: {values}. That is {item['steps']} steps of the "
        f"grid, between which the mean score of all images differs by {item['costs']:.4f}."
    )


def _value(name: str, value: float) -> str:
    return "no check" if name == "flow_threshold" and not value else f"{value:g}"


_ADVICE = {
    "warning": "What is best here depends on the images at hand: do not expect the fitted gain elsewhere.",
    "note": "The curve is flat there, so that costs next to nothing.",
}

"""The course of a training as one picture."""

from __future__ import annotations

import re
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cellflow.report._figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    save_figure,
    say_empty,
)

__all__ = ["HISTORY_COLUMNS", "plot_history"]

HISTORY_COLUMNS = (
    "epoch", "train_loss", "grad_norm", "learning_rate", "skipped_steps", "val_loss", "val_score",
    "val_score_ema", "best_score", "images_per_second", "seconds", "waited",
)  # fmt: skip
"""What is drawn or written; a column that is missing counts as unknown. Each term of the loss has another
one, ``train_NAME_loss``, in the file after train_loss."""

MARGINS = {"left": 0.1, "right": 0.98, "top": 0.93, "bottom": 0.075, "hspace": 0.23}
"""Parts of the picture around and between its panels. Given, not found by matplotlib: that took half of the
time of a picture that is drawn at every epoch."""
LABEL_X = -0.078
MANY_EPOCHS = 300
"""From so many values on, a line is drawn pale with its running median over it."""
FEW_POINTS = 60
"""Up to so many values, each has a marker."""
SMALLEST_RATE = 1e-4
"""Learning rates below this part of the highest one are out of the picture."""
WIDE_RANGE = 10.0
"""Losses that span more than this factor get a logarithmic axis."""

_TERM_COLOURS = (GREEN, PURPLE, ORANGE, SKY, GREY)
_SCORES = (
    ("val_score", "network", BLUE, "o"),
    ("val_score_ema", "EMA of the network", ORANGE, "s"),
)


def plot_history(path: Path, history: pd.DataFrame, *, title: str) -> None:
    """Write a PNG with losses, scores, learning rate and gradient norm over the epochs.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    history : DataFrame
        A row per epoch with the columns of `HISTORY_COLUMNS` and of the loss's terms. Losses without
        unit; `learning_rate` as given to the optimizer; `grad_norm` before clipping; scores from 0 to 1;
        `seconds` and `waited` (for crops) of the epoch. Epoch 0 is the network before training. NaN is unknown.
    title : str
        Title of the picture.
    """
    table = _numbers(history)
    figure = Figure(figsize=(10, 10))
    figure.suptitle(title, y=0.985, fontsize=13, fontweight="bold", parse_math=False)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 1.5, 1.5), gridspec_kw=MARGINS)
    _plot_losses(panels[0], table)
    _plot_scores(panels[1], table)
    _plot_learning_rate(panels[2], table)
    _plot_gradient(panels[3], table)
    for axes in panels:
        _tidy(axes)
    _set_epochs(panels[3], table["epoch"])
    figure.supxlabel(_summary(table), y=0.012, fontsize=9, color=GREY)
    save_figure(path, figure)


def _numbers(history: pd.DataFrame) -> pd.DataFrame:
    """All columns as finite floats or NaN, in the order of the epochs."""
    table = history.reindex(columns=[*HISTORY_COLUMNS, *_term_columns(history)])
    table = table.apply(pd.to_numeric, errors="coerce").astype(float)
    table = table.replace([np.inf, -np.inf], np.nan).dropna(subset="epoch")
    table = table.sort_values("epoch", kind="stable")
    return cast("pd.DataFrame", table.reset_index(drop=True))


def _term_columns(table: pd.DataFrame) -> dict[str, str]:
    """Name of each term of the loss by its column."""
    terms = {str(column): re.fullmatch("train_(.+)_loss", str(column)) for column in table}
    return {column: term[1] for column, term in terms.items() if term}


def _plot_losses(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_title("Loss", loc="left", y=1.0)
    axes.set_ylabel("loss")
    _line(axes, table, "train_loss", label="training", color=BLUE, width=2.0)
    terms = _term_columns(table)
    for (column, name), color in zip(terms.items(), cycle(_TERM_COLOURS), strict=False):
        _line(axes, table, column, label=f"its {name} part", color=color, width=0.9)
    _points(axes, table, "val_loss", label="validation", color=RED, marker="D")
    values = table[["train_loss", *terms, "val_loss"]].to_numpy().ravel()
    positive = values[values > 0]
    if not np.isfinite(values).any():
        say_empty(axes, "no epoch has ended yet")
    elif len(positive) and positive.max() > WIDE_RANGE * positive.min():
        _set_log(axes)


def _plot_scores(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_title("Competition score of the validation images", loc="left", y=1.0)
    axes.set_ylabel("score (0 to 1)")
    with_ema = table["val_score_ema"].notna().any()
    for column, label, color, marker in _SCORES:
        name = label if with_ema else "validation"
        _points(axes, table, column, label=name, color=color, marker=marker)
    if table[["val_score", "val_score_ema"]].isna().all(axis=None):
        say_empty(axes, "no evaluation yet")
        return
    low, high = axes.get_ylim()
    # room for what is written at the best
    axes.set_ylim(max(low, -0.02), high + 0.18 * (high - low))
    _mark_best(axes, table)


def _mark_best(axes: Axes, table: pd.DataFrame) -> None:
    best = table["best_score"]
    if best.isna().all():
        return
    known = best.dropna()
    row = known.index[known != known.iloc[-1]].max()  # the epoch that set what is the best now
    row = int(known.index[0] if np.isnan(row) else known.index[known.index > row][0])
    epoch, score = float(table["epoch"][row]), float(best[row])
    axes.plot(
        [epoch], [score], "*", color=RED, markersize=15, markeredgecolor="white", zorder=5,
        label="best",
    )  # fmt: skip
    middle = (table["epoch"].min() + table["epoch"].max()) / 2
    side = "left" if epoch <= middle else "right"
    axes.annotate(
        f"{score:.4f} at epoch {epoch:.0f}", (epoch, score), xytext=(10 if side == "left" else -10, 7),
        textcoords="offset points", ha=side, va="bottom", fontweight="bold", zorder=6,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _plot_learning_rate(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_title("Learning rate", loc="left", y=1.0)
    axes.set_ylabel("rate")
    positive = table.assign(learning_rate=table["learning_rate"].where(table["learning_rate"] > 0))
    if positive["learning_rate"].isna().all():
        say_empty(axes, "unknown or 0 so far")
        return
    _line(axes, positive, "learning_rate", label=None, color=BLUE, width=1.6, smooth=False)
    _set_log(axes)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], SMALLEST_RATE * table["learning_rate"].max()))


def _plot_gradient(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_title("Gradient norm", loc="left", y=1.0)
    axes.set_ylabel("norm")
    positive = table.assign(grad_norm=table["grad_norm"].where(table["grad_norm"] > 0))
    if positive["grad_norm"].isna().all():
        say_empty(axes, "not measured")
    else:
        _line(axes, positive, "grad_norm", label=None, color=BLUE, width=1.6)
        _set_log(axes)
    skipped = table[table["skipped_steps"] > 0]
    if len(skipped):
        count = int(skipped["skipped_steps"].sum())
        label = f"{count} skipped step{'s' if count > 1 else ''}"
        axes.plot(
            skipped["epoch"], np.full(len(skipped), 0.06), "^", color=RED, markersize=7,
            transform=axes.get_xaxis_transform(), label=label, zorder=5,
        )  # fmt: skip


def _line(
    axes: Axes,
    table: pd.DataFrame,
    column: str,
    *,
    label: str | None,
    color: str,
    width: float,
    smooth: bool = True,
) -> None:
    """A value of every epoch: markers when there are few, pale under a running median when many."""
    values = table[column]
    known = int(values.notna().sum())
    if not known:
        return
    if known <= MANY_EPOCHS or not smooth:
        marker = "." if known <= FEW_POINTS else None
        axes.plot(table["epoch"], values, color=color, lw=width, marker=marker, ms=8, label=label)
        return
    axes.plot(table["epoch"], values, color=color, lw=0.6, alpha=0.3)
    window = 2 * (known // 200) + 1
    median = values.rolling(window, center=True, min_periods=1).median()
    axes.plot(table["epoch"], median.where(values.notna()), color=color, lw=width, label=label)


def _points(
    axes: Axes, table: pd.DataFrame, column: str, *, label: str, color: str, marker: str
) -> None:
    """Values of the evaluated epochs, joined over the epochs between."""
    known = table[table[column].notna()]
    if len(known) > MANY_EPOCHS:
        _line(axes, known, column, label=label, color=color, width=1.4)
        return
    if len(known) > FEW_POINTS:
        style: dict[str, Any] = {"marker": ".", "markersize": 3, "markeredgecolor": color}
    else:
        style = {"marker": marker, "markersize": 6, "markeredgecolor": "white"}
    if len(known):
        axes.plot(known["epoch"], known[column], color=color, lw=1, label=label, zorder=4, **style)


def _set_log(axes: Axes) -> None:
    """A logarithmic axis whose numbers are written out, also when it spans less than a decade."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 1.5 * low:  # a constant: room around it, so that it does not look like a change
        axes.set_ylim(low / 2, high * 2)
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    narrow = high < 100 * low
    axes.yaxis.set_minor_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if narrow and f"{value:e}"[0] in "25" else "")
    )


def _tidy(axes: Axes) -> None:
    if axes.lines:
        axes.grid(True, color="0.9", lw=0.7)
    axes.set_axisbelow(True)
    axes.yaxis.set_label_coords(LABEL_X, 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles, labels, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles),
            frameon=False, borderaxespad=0.1, columnspacing=1.4, handlelength=1.6,
        )  # fmt: skip


def _set_epochs(axes: Axes, epochs: pd.Series[float]) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    first, last = (epochs.min(), epochs.max()) if len(epochs) else (0.0, 1.0)
    margin = max(0.5, 0.015 * (last - first))
    axes.set_xlim(first - margin, last + margin)


def _summary(table: pd.DataFrame) -> str:
    """How long it took and how fast it was, in one line."""
    trained = int((table["epoch"] > 0).sum())
    parts = [f"{trained} epoch{'' if trained == 1 else 's'}"]
    seconds = float(table["seconds"].sum())
    if seconds > 0:
        parts.append(f"{_duration(seconds)} of training steps")
    if table["images_per_second"].notna().any():
        parts.append(f"{table['images_per_second'].median():.3g} images per second (median)")
    if seconds > 0 and table["waited"].notna().any():
        parts.append(f"{table['waited'].sum() / seconds:.0%} of the time spent waiting for crops")
    return "  ·  ".join(parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

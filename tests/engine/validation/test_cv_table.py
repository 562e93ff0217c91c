from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellflow.engine.validation.cv_table import cross_validation
from cellflow.report.text.cv import cv_text


def table(**columns) -> pd.DataFrame:
    plain = {
        "id": ["a", "b", "c", "d"],
        "fold": [0, 0, 0, 1],
        "cell_type": ["x", "y", "x", "y"],
        "group": ["1", "2", "2", "3"],
        "score": [0.4, 0.6, 0.8, 0.2],
        "last_epoch_score": [0.3, 0.5, 0.8, 0.2],
        "selection_bias": [0.02, 0.02, 0.02, np.nan],
        "ap50": [0.5, 0.7, 0.9, 0.3],
        "ap75": [0.3, 0.5, 0.7, 0.1],
        "n_true": [3, 4, 5, 6],
        "n_found": [2, 4, 4, 0],
        "n_missed": [1, 0, 1, 6],
        "n_false": [2, 0, 1, 0],
    }
    return pd.DataFrame(plain | columns)


def test_means_are_over_images() -> None:
    cv = cross_validation(table()).set_index(["scope", "name"])
    assert list(cv.index) == [
        ("fold", "0"), ("fold", "1"), ("cell_type", "x"), ("cell_type", "y"), ("overall", "all"),
    ]  # fmt: skip
    overall = cv.loc[("overall", "all")]
    assert overall["best_epoch"] == pytest.approx(0.5)
    assert overall["last_epoch"] == pytest.approx(0.45)
    assert (overall["images"], overall["groups"], overall["cells"]) == (4, 3, 18)
    assert np.isnan(overall["cross_fitted"])
    assert overall["expected"] == pytest.approx(0.48)
    assert overall["low"] <= overall["expected"] <= overall["high"]


def test_precision_and_recall_are_of_summed_counts() -> None:
    cv = cross_validation(table()).set_index(["scope", "name"])
    rates = cv[["precision", "recall", "f1"]]
    assert rates.loc[("overall", "all")].tolist() == pytest.approx([10 / 13, 10 / 18, 20 / 31])
    assert rates.loc[("fold", "1")].tolist() == [0, 0, 0]  # nothing was found
    assert rates.loc[("cell_type", "x")].tolist() == pytest.approx([6 / 9, 6 / 8, 12 / 17])


def test_the_cross_fitted_score_takes_the_place_of_the_best_epoch() -> None:
    cv = cross_validation(table(cross_fitted=[0.5, 0.7, 0.9, 0.3]))
    overall = cv.iloc[-1]
    assert overall["cross_fitted"] == pytest.approx(0.6)
    assert overall["expected"] == pytest.approx(overall["cross_fitted"] - overall["selection_bias"])


def test_where_no_bias_is_known_nothing_is_expected() -> None:
    cv = cross_validation(table(selection_bias=np.nan))
    assert cv[["expected", "low", "high", "selection_bias"]].isna().all(axis=None)
    fold = cross_validation(table()).iloc[1]
    assert np.isnan(fold["expected"])  # the only image of fold 1 has none


def test_text_names_every_number_it_shows() -> None:
    text = cv_text(cross_validation(table()))
    assert "optimistic" in text and "not calibrated yet" in text
    assert "fitted on the other folds" not in text
    text = cv_text(cross_validation(table(cross_fitted=0.5)))
    assert "fitted    best epoch, thresholds fitted on the other folds" in text
    assert "not calibrated" not in text


def test_text_fits_a_terminal() -> None:
    text = cv_text(cross_validation(table(cross_fitted=[0.5, 0.7, 0.9, np.nan])))
    assert max(map(len, text.splitlines())) <= 80
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["all"][1:] == ["3", "18", "0.600", "0.400", "0.769", "0.556", "0.645"]
    head = next(line.split() for line in text.splitlines() if line.startswith("SCORE"))
    assert head[1:7] == ["images", "last", "best", "fitted", "bias", "expected"]


def test_images_without_a_type_have_a_name_in_the_table() -> None:
    assert "(none) " in cv_text(cross_validation(table(cell_type=["", "", "round", "round"])))

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellflow.engine.cross_validation import cross_validation, cv_text


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
    assert "optimistic" in text and "cellflow calibrate" in text
    assert "cross_fitted:" not in text
    text = cv_text(cross_validation(table(cross_fitted=0.5)))
    assert "cross_fitted: best epoch, thresholds fitted on the other folds" in text
    assert "not calibrated" not in text

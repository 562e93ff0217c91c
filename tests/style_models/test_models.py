from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from cellflow.errors import CheckpointError
from cellflow.style_models import CellTypeModel, DiameterModel, StyleModels

STYLES = np.random.default_rng(0).normal(size=(8, 6))


def make_models(*, types: bool = True) -> StyleModels:
    return StyleModels(
        cell_type=CellTypeModel.fit(STYLES, ["a", "b"] * 4) if types else None,
        diameter=DiameterModel.fit(STYLES, np.arange(20.0, 28.0)),
        type_diameters={"a": 23.0, "b": 24.0} if types else {},
        model_hash="0123",
    )


@pytest.mark.parametrize("types", [True, False])
def test_json_and_back_to_the_bit(types: bool) -> None:
    models = make_models(types=types)
    again = StyleModels.from_dict(json.loads(json.dumps(models.to_dict())))
    assert again.to_dict() == models.to_dict()
    assert again.model_hash == "0123"
    assert again.type_diameters == models.type_diameters
    np.testing.assert_array_equal(
        again.diameter.diameters(STYLES), models.diameter.diameters(STYLES)
    )
    if models.cell_type is None:
        assert again.cell_type is None
    else:
        assert again.cell_type is not None
        found, expected = (
            model.probabilities(STYLES) for model in (again.cell_type, models.cell_type)
        )
        np.testing.assert_array_equal(found, expected)


def test_it_says_what_it_is() -> None:
    value = make_models().to_dict()
    assert (value["schema"], value["version"]) == ("cellflow-style-models", 1)


@pytest.mark.parametrize("value", [None, [], "text", 3, {}, {"schema": "cellflow-style-models"}])
def test_something_else_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="style models: expected"):
        StyleModels.from_dict(value)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        (
            "schema",
            "cellflow-run",
            "expected the schema 'cellflow-style-models', found 'cellflow-run'",
        ),
        ("version", 2, "version 2 of the format, this cellflow knows 1. Update cellflow"),
        ("version", "x", "version 'x'"),
        ("cell_type", {"classes": ["a"]}, "cell type model: .*not found: weights, bias"),
        ("cell_type", "a", "cell type model: expected an object, found str"),
        ("diameter", None, "diameter model: expected an object, found NoneType"),
        ("diameter", {"weights": [1.0], "bias": 3.0, "smallest": 9.0, "largest": 40.0}, "6 and 1"),
        ("type_diameters", [1.0], "type_diameters: expected an object, found list"),
        ("type_diameters", {"a": "big"}, "type_diameters of 'a'"),
        ("type_diameters", {"a": 0.0}, "expected positive pixels"),
        ("model_hash", None, "model_hash: expected text, found None"),
    ],
)
def test_damage_is_refused(entry: str, value: Any, message: str) -> None:
    good = make_models().to_dict()
    with pytest.raises(CheckpointError, match=message):
        StyleModels.from_dict(good | {entry: value})
    lacking = copy.deepcopy(good)
    del lacking[entry]
    with pytest.raises(CheckpointError, match=f"not found: {entry}"):
        StyleModels.from_dict(lacking)

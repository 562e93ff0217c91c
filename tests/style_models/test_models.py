from __future__ import annotations

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


@pytest.mark.parametrize("value", [None, [], "text", 3, {}, {"schema": "cellflow-run"}])
def test_something_else_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="expected the schema 'cellflow-style-models'"):
        StyleModels.from_dict(value)


@pytest.mark.parametrize("version", [2, "x", None])
def test_another_version_is_refused(version: Any) -> None:
    with pytest.raises(CheckpointError, match="Update cellflow") as error:
        StyleModels.from_dict(make_models().to_dict() | {"version": version})
    assert (error.value.expected, error.value.found) == (1, version)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("cell_type", {"classes": ["a"]}),
        ("cell_type", "a"),
        ("cell_type.classes", []),
        ("cell_type.classes", ["b", "a"]),
        ("cell_type.classes", ["a", "a"]),
        ("cell_type.classes", ["", "a"]),
        ("cell_type.classes", ["a", 2]),
        ("cell_type.weights", [[1.0, 2.0]]),
        ("cell_type.weights", [[], []]),
        ("cell_type.weights", [[1.0, 2.0], [3.0]]),
        ("cell_type.weights", [["x"] * 6, ["y"] * 6]),
        ("cell_type.bias", [0.0, float("nan")]),
        ("cell_type.bias", [0.0, 1.0, 1.0]),
        ("cell_type.bias", None),
        ("diameter", None),
        ("diameter.weights", []),
        ("diameter.weights", [1.0] * 5),
        ("diameter.weights", [1.0, None] * 3),
        ("diameter.weights", 1.0),
        ("diameter.bias", [3.0]),
        ("diameter.bias", 10**400),
        ("diameter.smallest", -1.0),
        ("diameter.largest", 1.0),
        ("diameter.largest", float("inf")),
        ("type_diameters", [1.0]),
        ("type_diameters", {"a": "big"}),
        ("type_diameters", {"a": 0.0}),
    ],
)
def test_damage_is_refused(where: str, value: Any) -> None:
    damaged = make_models().to_dict()
    *outer, name = where.split(".")
    inner = damaged[outer[0]] if outer else damaged
    inner[name] = value
    with pytest.raises(CheckpointError, match="expected style models, found damage"):
        StyleModels.from_dict(damaged)
    del inner[name]
    with pytest.raises(CheckpointError, match="expected style models, found damage"):
        StyleModels.from_dict(damaged)

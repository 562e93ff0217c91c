"""All that one network's styles tell, as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellflow.errors import CheckpointError
from cellflow.style_models._arrays import array_from_json, entries_from_json
from cellflow.style_models.cell_type import CellTypeModel
from cellflow.style_models.diameter import DiameterModel

__all__ = ["StyleModels"]

_SCHEMA = "cellflow-style-models"
_VERSION = 1
_ENTRIES = ("cell_type", "diameter", "type_diameters", "model_hash")


@dataclass(frozen=True, eq=False)
class StyleModels:
    """Models fitted on one network's styles of its own training images.

    Attributes
    ----------
    cell_type : CellTypeModel or None
        None where the images have no cell types.
    diameter : DiameterModel
        Per image.
    type_diameters : dict
        Mean of the training images' median diameters in pixels, per cell type that has any cells.
    model_hash : str
        Hash of the network's file; with another network's styles the models are at chance.
    """

    cell_type: CellTypeModel | None
    diameter: DiameterModel
    type_diameters: dict[str, float]
    model_hash: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; `from_dict` gives the same models to the bit."""
        return {
            "schema": _SCHEMA,
            "version": _VERSION,
            "model_hash": self.model_hash,
            "type_diameters": dict(self.type_diameters),
            "cell_type": None if self.cell_type is None else self.cell_type.to_dict(),
            "diameter": self.diameter.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: Any) -> StyleModels:
        """The models that `to_dict` wrote.

        Raises
        ------
        CheckpointError
            If it is something else, damaged, or of a newer version.
        """
        _check_schema(value)
        cell_type, diameter, type_diameters, model_hash = entries_from_json(
            value, "style models", _ENTRIES
        )
        if not isinstance(model_hash, str):
            raise CheckpointError(f"model_hash: expected text, found {model_hash!r}.")
        models = cls(
            None if cell_type is None else CellTypeModel.from_dict(cell_type),
            DiameterModel.from_dict(diameter),
            _type_diameters(type_diameters),
            model_hash,
        )
        _check_features(models)
        return models


def _check_schema(value: Any) -> None:
    schema, version = entries_from_json(value, "style models", ("schema", "version"))
    if schema != _SCHEMA:
        raise CheckpointError(f"style models: expected the schema {_SCHEMA!r}, found {schema!r}.")
    if version != _VERSION:
        raise CheckpointError(
            f"style models: version {version!r} of the format, this cellflow knows {_VERSION}. "
            "Update cellflow, or fit the models again."
        )


def _type_diameters(value: Any) -> dict[str, float]:
    """Pixels per cell type; JSON keys are text anyway."""
    names = tuple(value) if isinstance(value, dict) else ()
    numbers = entries_from_json(value, "type_diameters", names)
    diameters = {
        name: float(array_from_json(number, f"type_diameters of {name!r}", ()))
        for name, number in zip(names, numbers, strict=True)
    }
    if any(pixels <= 0 for pixels in diameters.values()):
        raise CheckpointError(f"type_diameters: expected positive pixels, found {diameters}.")
    return diameters


def _check_features(models: StyleModels) -> None:
    """Both models read the same styles."""
    if models.cell_type is None:
        return
    types, diameter = models.cell_type.weights.shape[1], len(models.diameter.weights)
    if types != diameter:
        raise CheckpointError(
            "style models: expected as many weights per class as the diameter model has, found "
            f"{types} and {diameter}."
        )

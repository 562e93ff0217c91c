"""All that one network's styles tell, as one JSON object."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cellflow.errors import CheckpointError
from cellflow.style_models.cell_type import CellTypeModel
from cellflow.style_models.diameter import DiameterModel

__all__ = ["StyleModels"]

_SCHEMA = "cellflow-style-models"
_VERSION = 1


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
    type_factor : float or None
        Spread of the estimates: the greatest factor between the diameter that `diameter` tells of an image and
        that of its type, over images that neither the network nor the models have seen and whose type is told
        right; 1 where none is. None where that was not looked at.
    """

    cell_type: CellTypeModel | None
    diameter: DiameterModel
    type_diameters: dict[str, float]
    model_hash: str
    type_factor: float | None = None

    def __post_init__(self) -> None:
        if self.cell_type and self.cell_type.weights.shape[1] != len(self.diameter.weights):
            raise ValueError("expected as many weights of each cell type as of the diameter")
        if not all(0 < pixels < np.inf for pixels in self.type_diameters.values()):
            raise ValueError(f"expected positive diameters of types, found {self.type_diameters}")
        if self.type_factor is not None and not 1 <= self.type_factor < np.inf:
            raise ValueError(f"expected a factor of at least 1, found {self.type_factor}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; `from_dict` gives the same models to the bit."""
        value = {"schema": _SCHEMA, "version": _VERSION, **asdict(self)}
        for model in filter(None, (value["cell_type"], value["diameter"])):
            model |= {name: np.asarray(item).tolist() for name, item in model.items()}
        return value

    @classmethod
    def from_dict(cls, value: Any) -> StyleModels:
        """The models that `to_dict` wrote.

        Raises
        ------
        CheckpointError
            If it is something else, damaged, or of a newer version.
        """
        if not isinstance(value, dict) or value.get("schema") != _SCHEMA:
            raise CheckpointError(f"expected the schema {_SCHEMA!r}, found {value!r:.80}")
        if value.get("version") != _VERSION:
            raise CheckpointError(
                f"version {value.get('version')!r} of the format, this cellflow knows {_VERSION}. "
                "Update cellflow, or fit the models again.",
                expected=_VERSION, found=value.get("version"),
            )  # fmt: skip
        try:
            factor = value.get("type_factor")  # older files have none
            types, sizes = value["cell_type"], value["diameter"]
            return cls(
                None if types is None
                else CellTypeModel(
                    tuple(types["classes"]), _floats(types["weights"]), _floats(types["bias"])
                ),
                DiameterModel(
                    _floats(sizes["weights"]),
                    *(float(sizes[name]) for name in ("bias", "smallest", "largest")),
                ),
                {name: float(pixels) for name, pixels in value["type_diameters"].items()},
                str(value["model_hash"]),
                None if factor is None else float(factor),
            )  # fmt: skip
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError(f"expected style models, found damage: {error!r:.200}") from error


def _floats(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(value, dtype=np.float64)

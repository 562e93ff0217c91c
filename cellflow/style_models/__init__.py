"""Cell type and diameter of an image from a network's style vector.

The styles of separately trained networks are not comparable, so every network has models of its own,
fitted on its styles of its own training images; what the models of several networks say is averaged.
Fitting takes scikit-learn; a fitted model is a few coefficients, kept as JSON and used with NumPy alone.
"""

from cellflow.style_models.cell_type import CellTypeModel, average_probabilities, choose_type
from cellflow.style_models.diameter import DiameterModel
from cellflow.style_models.models import StyleModels

__all__ = ["CellTypeModel", "DiameterModel", "StyleModels", "average_probabilities", "choose_type"]

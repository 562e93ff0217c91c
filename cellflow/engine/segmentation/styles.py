"""Styles of images, and the models of cell type and diameter fitted on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.recognition import combine_styles
from cellflow.errors import CheckpointError, DataError
from cellflow.io.dataset import Dataset
from cellflow.nn.forward import image_to_style
from cellflow.numeric.normalize import network_channels
from cellflow.storage.atomic import write_json
from cellflow.storage.records import load_json
from cellflow.style_models import CellTypeModel, DiameterModel, StyleModels

__all__ = ["fit_style_models", "image_style", "read_style_models", "write_style_models"]


def image_style(
    member: Member,
    image: NDArray[Any],
    *,
    batch_size: int = 8,
) -> NDArray[np.float32]:
    """Style of an image, at the scale that the member works at by default.

    That is ``diam_mean / diam_labels`` for every image: the diameter of its cells is not known yet.

    Parameters
    ----------
    member : Member
        The network; styles of different networks are not comparable.
    image : (H, W) or (H, W, C) ndarray
        Native pixels, any numeric type; normalised as for segmentation.
    batch_size : int
        Tiles per network call.

    Returns
    -------
    (style_size,) float32 ndarray
        Of length 1.

    Raises
    ------
    DataError
        If the image has another shape, lacks the member's channels, or holds NaN or infinity.
    NotFiniteError
        If the network's features are not numbers.
    """
    normal = network_channels(image, member.chan, member.chan2)
    rescale = member.diam_mean / member.diam_labels
    return image_to_style(member.runner, normal, rescale=rescale, batch_size=batch_size)


def fit_style_models(
    member: Member,
    dataset: Dataset,
    names: Sequence[str],
    *,
    held_out: Sequence[str] = (),
    batch_size: int = 8,
    check: Callable[[], None] | None = None,
) -> StyleModels | None:
    """Fit a network's models of cell type and diameter; None where the network has no styles.

    Parameters
    ----------
    member : Member
        The network.
    dataset : Dataset
        With a column ``cell_type`` where types are known; an empty one is no type, and such an image
        counts for the diameter alone.
    names : sequence of str
        Ids of the network's own training images. Those without cells say nothing of the diameter.
    held_out : sequence of str
        Ids of images that the network has not seen, from which the spread of the estimates is taken
        (`StyleModels.type_factor`), where there are several types.
    batch_size : int
        Tiles per network call.
    check : callable, optional
        Called before every image of `names`. What it raises ends the fit.

    Raises
    ------
    DataError
        If an id is unknown, an image cannot be read, or none of the images has cells.
    """
    if member.net.style_size is None:
        return None
    diameters, types = _truth(dataset, names)
    if not diameters.any():
        raise DataError(
            f"{dataset.path}: expected cells in at least one of {len(names)} training images, found "
            "none. The diameter cannot be learnt from these images."
        )
    found = []
    for name in follow(names, "styles", brief=True):
        if check is not None:
            check()
        found.append(image_style(member, dataset.image(name), batch_size=batch_size))
    styles = np.stack(found)
    typed, with_cells = types != "", diameters > 0
    models = StyleModels(
        cell_type=CellTypeModel.fit(styles[typed], types[typed].tolist()) if typed.any() else None,
        diameter=DiameterModel.fit(styles[with_cells], diameters[with_cells]),
        type_diameters={
            str(name): float(diameters[with_cells & (types == name)].mean())
            for name in np.unique(types[typed & with_cells])
        },
        model_hash=member.hash,
    )
    if not held_out or len(models.type_diameters) < 2:
        return models
    return replace(models, type_factor=_type_factor(member, models, dataset, held_out, batch_size))


def _type_factor(
    member: Member, models: StyleModels, dataset: Dataset, names: Sequence[str], batch_size: int
) -> float:
    """Greatest factor between an image's estimate and its type's diameter, where the type is told right."""
    member, factor = replace(member, styles=models), 1.0
    for name, true in zip(names, _truth(dataset, names)[1], strict=True):
        style = image_style(member, dataset.image(name), batch_size=batch_size)
        known = combine_styles([member], {0: style})
        size = models.type_diameters.get(known.cell_type)
        if size is not None and known.cell_type == true:
            factor = max(factor, known.diameter / size, size / known.diameter)
    return factor


def write_style_models(path: Path, models: StyleModels) -> None:
    """Write the models of one network as JSON, atomically."""
    write_json(path, models.to_dict())


def read_style_models(path: Path) -> StyleModels:
    """Read the models of one network.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another kind or of a newer version.
    """
    path = Path(path)
    try:
        return StyleModels.from_dict(load_json(path))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}).", path=path
        ) from error
    except ValueError as error:  # no JSON, or no style models
        raise CheckpointError(
            f"{path}: {error} Where the file is damaged, remove it and repeat the command that wrote it.",
            path=path,
        ) from error


def _truth(dataset: Dataset, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Median diameters in pixels (0 without cells) and cell types ("" where unknown) of the images."""
    unknown = [name for name in names if name not in dataset.images.index]
    if unknown:
        raise DataError(
            f"{dataset.path}: no image with the id {unknown[0]!r} among its {len(dataset)} images."
        )
    rows = dataset.images.loc[list(names)]
    types = rows["cell_type"] if "cell_type" in rows else [""] * len(rows)
    return rows["median_diameter"].to_numpy(dtype=np.float64), np.array(list(types), dtype=np.str_)

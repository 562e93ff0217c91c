"""Settings of `prepare`, `verify` and `folds`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.checks import COUNT, NAME_FILTER, SEED
from cellflow.config.shared import MAX_PIXELS

Fix = Literal["fill", "largest", "split", "keep"]


@dataclass(frozen=True)
class ReadingConfig:
    """Where annotated images are, and how they are read: what `prepare` and `verify` share."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder in the Kaggle layout, with images/ and masks/ (or labels/), with ID/images/ and ID/masks/, or with
    NAME files beside NAME_masks, NAME_seg.npy, NAME_rois.zip or NAME.geojson; COCO json, or a folder with one;
    OME-Zarr. `verify` also takes a dataset folder, and a run by its folder or name."""
    table: Path | None = None
    """CSV (also .csv.gz) with an id column and more columns (cell type, group), joined on the id."""
    masks: Path | None = None
    """Folder of label maps, when it is not SOURCE/masks."""
    images: Path | None = None
    """Folder of the images, where annotations do not lie beside them."""
    mask_filter: Annotated[str, NAME_FILTER] = "_masks"
    """Ending of mask file names when images and masks share one folder, as in Cellpose; _seg for NAME_seg.npy.
    With a * for the id it says what comes before it too: 'mask_*'."""
    img_filter: Annotated[str, NAME_FILTER] = ""
    """Ending of image file names that is no part of the id, as in Cellpose, or 'img_*' with a * for the id; images
    without it are left out."""
    annotated_only: bool = False
    """Leave out images that have no mask; else each is an error, as an image without cells has an empty mask."""
    category: tuple[str, ...] = ()
    """Take the cells of these categories of a COCO file alone, by their names."""
    colours: bool = False
    """Take pictures as label maps in which each cell has a colour of its own."""
    rle_order: Literal["auto", "C", "F"] = "auto"
    """Order of the runs in train.csv: C row by row, F column by column; auto takes that of compact cells."""
    id_column: str = "id"
    """Column of image ids in train.csv or --table."""
    annotation_column: str = "annotation"
    """Column of run-length masks in train.csv."""
    cell_type_column: str = "cell_type"
    """Column of cell types; kept as cell_type."""
    max_pixels: Annotated[int, COUNT] = MAX_PIXELS
    """Images that claim more pixels, height times width, are refused before they are unpacked."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = [] if self.mask_filter else ["--mask_filter must not be empty"]
        if self.mask_filter and self.mask_filter == self.img_filter:
            found.append(f"--mask_filter and --img_filter are the same: {self.mask_filter}")
        return found


@dataclass(frozen=True)
class PrepareConfig(ReadingConfig):
    """Turn annotated images into a dataset folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import PrepareConfig
    >>> PrepareConfig(Path("microscope")).out.name
    'cellflow-data'
    """

    out: Path = Path("cellflow-data")
    """Dataset folder to write."""
    split: bool = False
    """Make every separate part of a label a cell of its own: for masks of foreground or of classes."""
    fix: tuple[Fix, ...] = ()
    """What to do about cells with faults, one after the other: fill closes holes over background, largest keeps
    the largest part of each cell, split makes every part a cell, keep changes nothing. Also of a dataset folder,
    which is then written anew as --out."""
    audit: Path | None = None
    """List with the marks of `cellflow audit`, to apply to the dataset it was made of: fix puts the proposed cells in
    place of the annotation or adds them, drop removes it, ok keeps it and is remembered. Comes before --fix."""
    overwrite: bool = False
    """Replace an existing dataset folder."""

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """All that is to be done about cells, in order."""
        return ("split", *self.fix) if self.split else self.fix

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = super().problems()
        if "keep" in self.fix and len(set(self.fix)) > 1:
            found.append(f"--fix keep changes nothing, so it stands alone: {' '.join(self.fix)}")
        return found


@dataclass(frozen=True)
class VerifyConfig(ReadingConfig):
    """Read images with their cells, a dataset, or a run, and say what is wrong; nothing is changed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import VerifyConfig
    >>> VerifyConfig(Path("microscope")).out is None
    True
    """

    out: Path | None = None
    """CSV to write: a row for everything found (kind, verdict, id, cell, reason)."""
    data: Path | None = None
    """Dataset folder of a run, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = super().problems()
        places = [self.source, self.table, self.masks, self.images]
        if self.out is not None and any(lies_in(self.out, place) for place in places if place):
            found.append(in_what_is_read(self.out))
        return found


def lies_in(path: Path, place: Path) -> bool:
    """Whether a path is a file or folder, or lies somewhere in it."""
    return path.resolve().is_relative_to(place.resolve())


def in_what_is_read(out: Path) -> str:
    """What is wrong with a table that would lie there, in words."""
    return f"--out {out} lies in what is read; name a file elsewhere"


@dataclass(frozen=True)
class FoldsConfig:
    """Split a dataset into folds that share no group.

    Examples
    --------
    >>> from cellflow import FoldsConfig
    >>> from cellflow.config import check_config
    >>> check_config(FoldsConfig(k=1))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --k must be at least 2, found 1
    """

    data: Annotated[Path, tyro.conf.arg(aliases=["--dir"])] = Path("cellflow-data")
    """Dataset folder made by `cellflow prepare`."""
    split: Literal["kfold", "holdout"] = "kfold"
    """K folds, or one holdout: fold 0 validates, fold 1 only trains."""
    k: int = 5
    """Number of folds."""
    holdout: float = 0.2
    """Share of the images that validate, with --split holdout."""
    group: str | None = None
    """Column of what must not be split (well, sample). Without it: group or sample_id, else the image.
    id makes every image its own group."""
    stratify: str | None = None
    """Column to balance over folds. Without it: cell_type if there."""
    calibration: float = 0.0
    """Share of the images reserved from all folds (fold -1), groups whole, for thresholds of an ensemble."""
    seed: Annotated[int, SEED] = 0
    """Seed of the split."""
    overwrite: bool = False
    """Replace an existing folds.csv."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.split == "kfold" and self.k < 2:
            found.append(f"--k must be at least 2, found {self.k}")
        if not 0 < self.holdout < 1:
            found.append(f"--holdout must lie between 0 and 1, found {self.holdout}")
        if not 0 <= self.calibration < 1:
            found.append(f"--calibration must be at least 0 and below 1, found {self.calibration}")
        return found

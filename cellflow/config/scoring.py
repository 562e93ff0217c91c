"""Settings of `score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.checks import COUNT, NAME_FILTER
from cellflow.config.metrics import MetricWord
from cellflow.config.shared import MAX_PIXELS


@dataclass(frozen=True)
class ScoreConfig:
    """Score any masks against the truth; with --versus, say which of two is better.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import ScoreConfig
    >>> from cellflow.config import check_config
    >>> check_config(ScoreConfig("masks", outlines_dir=Path("pictures")))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --outlines_dir needs --outlines
    """

    pred: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRED")]
    """Folder of label maps (ID.tif, ID.png, ID_seg.npy, or ending in _masks or _cp_masks) or of outlines (ImageJ
    ROIs, QuPath GeoJSON), results folder with masks/ in it, CSV with id and predicted, COCO json (annotations, or
    results of the truth's images), or a run by folder or name: its out-of-fold masks."""
    truth: Annotated[Path | None, tyro.conf.arg(aliases=["--data", "--dir"])] = None
    """Dataset folder, folder of label maps or outlines, COCO json, or CSV with id, annotation, width and height.
    Without it the data of the run."""
    versus: str | None = None
    """Other masks, in any form of PRED. Only images that both have are compared."""
    group: str | None = None
    """Column whose values are resampled whole for the intervals. Without it that of the folds, else group
    or sample_id, else the image. id makes every image its own group."""
    subset: bool = False
    """Accept masks that lack images of the truth, and score those there are."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    mask_filter: Annotated[str, NAME_FILTER] = ""
    """Ending of the names of label maps after the id, when it is not _masks or _cp_masks, or 'mask_*' with a * for
    the id; for PRED, --versus and --truth alike, wherever a name has it."""
    category: tuple[str, ...] = ()
    """Take the cells of these categories of COCO files alone, by their names; of PRED, --versus and --truth."""
    colours: bool = False
    """Take pictures as label maps in which each cell has a colour of its own."""
    rle_order: Literal["auto", "C", "F"] = "auto"
    """Order of the runs in a CSV that is PRED or --versus: C (and auto) row by row, F column by column."""
    outlines: bool = False
    """Pictures of truth and PRED over each image, the worst first: RANK_SCORE_ID.png, and the worst ones on
    one sheet, worst.png."""
    outlines_dir: Path | None = None
    """Folder for these pictures. Without it oof/outlines in the folder of a run that is scored on its own
    data, else outlines/NAME."""
    images: Path | None = None
    """Images, for the pictures and for the size of the images of a truth that is outlines: folder, dataset or (for
    the pictures) list; not needed where the truth is a dataset, or has its images beside it."""
    metrics: tuple[MetricWord, ...] = ()
    """More metrics, or all (docs/metrics.md defines them). competition: mean of TP / (TP + FP + FN) over IoU 0.50,
    0.55 ... 0.95, which is always there. precision_50 recall_50 f1_50, precision_75 recall_75 f1_75: cells matched
    one to one above that IoU. pq: panoptic quality, sq times rq. sq: mean IoU of the pairs above 0.5. rq: the same
    as f1_50. aji: aggregated Jaccard index. aji_plus: the same, one to one. seg, det: those of the Cell Tracking
    Challenge. dice: of the foreground. count_error: predicted minus true cells; count_error_absolute: without its
    sign; count_error_relative: divided by the true ones. coco_ap coco_ap50 coco_ap75: COCO's mask AP, by the
    confidence in cells.csv of a results folder or in COCO results, else 1 for every cell."""
    border: Literal["keep", "drop"] = "keep"
    """drop: leave out true and predicted cells with a pixel in the outer 2 pixels of the image, as NeurIPS 2022."""
    ignore: Path | None = None
    """Label maps or binary masks of regions to ignore, by the ids of the truth: their pixels do not count, and cells
    with more than half of their pixels there are left out on both sides."""
    max_dets: Annotated[int, COUNT] = 100
    """Predicted cells per image, the surest first, that count for COCO's AP; 100 is COCO's own."""
    max_pixels: Annotated[int, COUNT] = MAX_PIXELS
    """Label maps and images that claim more pixels, height times width, are refused before they are unpacked."""
    out: Path | None = None
    """CSV to write, a row per image."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = [] if self.pred else ["PRED must not be empty"]
        read = {"PRED": self.pred, "--truth": self.truth, "--versus": self.versus}
        if self.out is not None:
            same = [name for name, path in read.items() if path and Path(path) == self.out]
            found += [f"--out would overwrite {name}: {self.out}" for name in same]
        if self.max_dets != 100 and not {"all", "coco_ap", "coco_ap50", "coco_ap75"} & set(
            self.metrics
        ):
            found.append("--max_dets needs COCO's AP: add --metrics coco_ap")
        if not self.outlines:
            found += ["--outlines_dir needs --outlines"] if self.outlines_dir else []
        return found

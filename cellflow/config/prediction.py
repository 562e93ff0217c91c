"""Settings of `oof`, `ensemble`, `predict` and `demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cellflow.config.checks import (
    CHANNEL,
    COUNT,
    DIAMETER,
    FOLDER_NAME,
    NAME_FILTER,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Rule,
    listed_paths,
)
from cellflow.config.shared import MAX_PIXELS, MaskOverrides, RuntimeConfig, SchedulerText

SENSIBLE_PIXELS = 1e-5, 1e4
"""Micrometres between which a pixel of an image of cells can lie: of an electron microscope, of a camera."""
PIXEL_SIZE = Rule(
    "must lie between {:g} and {:g} micrometres".format(*SENSIBLE_PIXELS),
    lambda value: SENSIBLE_PIXELS[0] <= value <= SENSIBLE_PIXELS[1],
)
BLOCK = Rule("must be at least 256", lambda value: value >= 256)
ExportName = Literal[
    "masks", "cells", "submission", "outlines", "png", "seg", "roi", "geojson", "txt", "coco", "ome-zarr", "flows",
]  # fmt: skip
"""What a prediction can write: the names of `cellflow.engine.exports.EXPORTS`."""
NO_IMAGES = (
    "no images were named: give a folder, image files, a dataset, a pattern in quotes such as "
    "'plate/*.tif', or a text file with one path a line"
)


@dataclass(frozen=True)
class OofConfig:
    """Predict every image with the fold model that never saw it, and score it.

    Examples
    --------
    >>> from cellflow import OofConfig
    >>> from cellflow.config import check_config
    >>> check_config(OofConfig("exp", diameter=30, policy="image"))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --diameter and --policy exclude each other; give one of them
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Run folder or name; without it the newest run."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    policy: Literal["auto", "dataset", "type", "image"] = "auto"
    """Where diameters come from. dataset: the mean of the training images, as Cellpose. type: the mean of the
    image's cell type. image: an estimate per image. auto: a pass with each, and the best of them is kept."""
    diameter: Annotated[float | None, POSITIVE] = None
    """Cell diameter in pixels for all images, instead of a policy."""
    batch_size: Annotated[int, COUNT] = 8
    """Tiles per network call."""
    unfinished: bool = False
    """Accept folds whose training has stopped before its last epoch, with their best model so far."""
    outlines: bool = False
    """Pictures of truth and prediction over each image, the worst first: RUN/oof/outlines/RANK_SCORE_ID.png,
    and the worst ones on one sheet, worst.png. For a pass that is there: cellflow score RUN --outlines."""
    export: tuple[ExportName, ...] = ()
    """Files for other tools, in RUN/oof/export/; the names are those of cellflow predict --export. Where the
    out-of-fold predictions are there already, they are not made again."""
    scheduler: SchedulerText = None
    """Where images are predicted. local:N: N processes of this machine. tcp://HOST:PORT: a Dask cluster. slurm:N: N
    jobs of Slurm. Without it this process."""
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        if self.diameter is not None and self.policy != "auto":
            return ["--diameter and --policy exclude each other; give one of them"]
        return []


@dataclass(frozen=True)
class FilesConfig:
    """Which files are images."""

    recursive: bool = False
    """Take the images of sub-folders too; their ids have the folders in front: day1__a for day1/a.tif."""
    img_filter: Annotated[str, NAME_FILTER] = ""
    """Ending of the names of images, as in Cellpose: of a_img.tif with _img, whose id is a; or 'img_*' with a * for
    the id."""
    pixel_size: Annotated[float | None, PIXEL_SIZE] = None
    """Micrometres per pixel of all images, for label maps and tables; without it what the files say."""
    max_pixels: Annotated[int, COUNT] = MAX_PIXELS
    """Images that claim more pixels, height times width, are refused before they are unpacked."""

    @property
    def search(self) -> dict[str, Any]:
        """Arguments of `cellflow.io.image_source.find_images`, which unpacks nothing."""
        return {
            "recursive": self.recursive,
            "img_filter": self.img_filter,
            "pixel_size": self.pixel_size,
        }


@dataclass(frozen=True)
class InferenceConfig:
    """How members look at an image, and how their flows are averaged.

    Examples
    --------
    >>> from cellflow import InferenceConfig
    >>> from cellflow.config import check_config
    >>> check_config(InferenceConfig(scales=()))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --scales needs at least one factor, such as 1
    """

    diameter: Annotated[float | str | None, DIAMETER] = None
    """Cell diameter in pixels, or in micrometres such as 12um where the images tell their pixel size; without it what
    the run's diameter policy says."""
    diameter_rounds: Annotated[int, NOT_NEGATIVE] = 0
    """Times that an image may be predicted again at the median diameter of the cells found in it, until the two are
    alike: for images of another magnification than the training's. 3 are enough; with 0 it is predicted once."""
    chan: Annotated[int | str | None, CHANNEL] = None
    """Channel to segment, for model files of Cellpose, which do not say theirs: 0 grey, 1 red, 2 green, 3 blue, any
    further number, or its name in the images, such as DAPI."""
    chan2: Annotated[int | str | None, CHANNEL] = None
    """Nuclear channel, for model files of Cellpose."""
    cell_type: str | None = None
    """Cell type of all images; without it the members' style models tell it, image by image."""
    tta: bool = False
    """Every member sees the image flipped along rows, columns and both as well: four times the time."""
    scales: Annotated[tuple[float, ...], POSITIVE] = (1.0,)
    """Factors on the scale at which every member sees every image, such as 0.9 1 1.1."""
    augment: bool = False
    """Overlap tiles by half and flip every other one, as Cellpose's --augment."""
    batch_size: Annotated[int, COUNT] = 8
    """Tiles per network call."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = [] if self.scales else ["--scales needs at least one factor, such as 1"]
        if self.diameter is not None and self.diameter_rounds:
            found.append("--diameter and --diameter_rounds exclude each other; give one of them")
        return found


@dataclass(frozen=True)
class OutputConfig:
    """Where results go, and what is written.

    Examples
    --------
    >>> from cellflow import OutputConfig
    >>> from cellflow.config import check_config
    >>> check_config(OutputConfig(export=()))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: nothing would be written: name what with --export, such as masks
    """

    export: tuple[ExportName, ...] = ("masks", "cells", "submission")
    """What is written. masks: label maps, masks/ID.tif. cells: a row per cell with its size, place, shape,
    intensity and confidence, cells.csv. submission: run-length rows, submission.csv. outlines: pictures of the
    outlines, outlines/ID.png. png: label maps as Cellpose writes them, png/ID_cp_masks.png. seg: files for
    Cellpose's GUI, seg/ID_seg.npy. roi: ImageJ ROIs, rois/ID_rois.zip. geojson: QuPath detections with types and
    measurements, geojson/ID.geojson. txt: outlines as Cellpose's text, without holes and further parts,
    txt/ID_cp_outlines.txt. coco: COCO annotations of all images, coco.json, and COCO results with scores,
    coco_results.json. ome-zarr: images with their label maps, ome-zarr/ID.zarr. flows: what joins an ensemble with
    --flows, flows/ID.npz."""

    name: Annotated[str | None, FOLDER_NAME] = None
    """Name of the result; without it the names of the models joined by +."""
    out: Path = Path("predictions")
    """Folder for results: OUT/NAME/masks/ID.tif, OUT/NAME/cells.csv and OUT/NAME/submission.csv."""
    overwrite: bool = False
    """Replace an earlier result of this name. Otherwise the same command goes on where it stopped."""
    dry_run: bool = False
    """Predict nothing: measure one image and say how long all will take."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        if self.export:
            return []
        return ["nothing would be written: name what with --export, such as masks"]


@dataclass(frozen=True)
class SlidesConfig:
    """Images that are segmented block by block, with the cells that the whole image would give.

    Examples
    --------
    >>> from cellflow import SlidesConfig
    >>> from cellflow.config import check_config
    >>> check_config(SlidesConfig(block=100))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --block must be at least 256, found 100
    """

    block: Annotated[int | None, BLOCK] = None
    """Segment images in blocks of so many pixels a side; without it those of more than 25 million pixels are, in
    blocks of 2048. The cells are the same whatever it is; larger blocks take more memory and less time."""
    level: Annotated[int, NOT_NEGATIVE] = 0
    """Level of an image's pyramid to segment; 0 is the finest."""
    roi: str = ""
    """What is segmented of an image: TOP,LEFT,BOTTOM,RIGHT in pixels of the finest level, or a GeoJSON file, as QuPath
    exports annotations."""
    empty: Annotated[float, SHARE] = 0.0
    """Tiles whose values differ by no more than this part of the image's range (its percentiles 1 to 99) hold no cell,
    and no network is run on them, such as 0.1 for the glass of a slide. Without it those of one value are run once.
    Images are then segmented in blocks, as with --level and --roi."""
    scheduler: SchedulerText = None
    """Where images, and blocks of large ones, are worked on. local:N: N processes of this machine. tcp://HOST:PORT: a
    Dask cluster. slurm:N: N jobs of Slurm. Without it this process."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """What `predict` and `ensemble` share."""

    images: tuple[Path, ...]
    """Images, folders of images, datasets, patterns in quotes (`'a/*.tif'`), or text files with one path a line."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    ensembles_dir: Path = Path("ensembles")
    """Folder with calibrations of ensembles: ENSEMBLES_DIR/NAME/ensemble.json."""
    calibrated: bool = True
    """Use calibrated thresholds where there are any; else those of the training."""
    unfinished: bool = False
    """Also take folds whose training has stopped before its last epoch, with their best model so far. Folds that
    are not taken, or have no model yet, are left out with a warning."""
    download: bool = True
    """Fetch the file of a model that is given by name, such as cyto3, where Cellpose's model folder lacks it."""
    files: FilesConfig = field(default_factory=FilesConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    slides: SlidesConfig = field(default_factory=SlidesConfig)
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        listed_paths(self, "images")

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return [] if self.images else [NO_IMAGES]


@dataclass(frozen=True)
class EnsembleConfig(SegmentationConfig):
    """Average the flows of all fold models of one or more runs, then make masks once.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import EnsembleConfig
    >>> config = EnsembleConfig(images=(Path("new"),), runs=("exp", "second"), weights="cv")
    >>> config.output.out.name, config.weights
    ('predictions', 'cv')
    """

    images: tuple[Path, ...]
    """Images, folders of images, datasets, patterns in quotes (`'a/*.tif'`), or text files with one path a line."""
    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Run folders, names, archives, model files, or models of Cellpose's by name, such as cyto3; without any the
    newest run. All folds of all of them are members. RUN@TYPE joins only for images of that cell type."""
    flows: tuple[Path, ...] = ()
    """Folders of flows of other origin that join the average: ID.npz with flow, cellprob and scale."""
    weights: Literal["equal", "cv"] = "equal"
    """equal: every member counts the same. cv: as its fold's best score."""
    average: Literal["auto", "plain", "cellprob", "direction"] = "auto"
    """How flows are averaged. auto: what calibration chose for this ensemble, else plain."""


@dataclass(frozen=True)
class PredictConfig(SegmentationConfig):
    """Segment images with a run or a model file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import PredictConfig
    >>> PredictConfig(Path("new"), model="exp").images == (Path("new"),)  # one is a list of one
    True
    """

    images: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PATH [PATH ...]")
    ]
    """Images, folders of images, datasets, patterns in quotes (`'a/*.tif'`), or text files with one path a line."""
    model: Annotated[str | None, tyro.conf.arg(aliases=["--pretrained_model"])] = None
    """Run by name or folder; archive of a run; model file of cellflow or Cellpose 3; a model of Cellpose's by name,
    such as cyto3, fetched once; without it the newest run."""


@dataclass(frozen=True)
class DemoConfig:
    """The whole job on built-in images: prepare, folds, train, oof, calibrate, ensemble, submission.

    Examples
    --------
    >>> from cellflow import DemoConfig
    >>> from cellflow.config import check_config
    >>> check_config(DemoConfig(images=25))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --images must be even: they come in wells of two, found 25
    """

    out: Path = Path("cellflow-demo")
    """Folder to write; an earlier demo there is replaced."""
    images: int = 24
    """Annotated images."""
    unseen: Annotated[int, COUNT] = 6
    """Further images that no fold sees, for the ensemble."""
    n_epochs: Annotated[int, COUNT] = 30
    """Epochs of each fold."""
    k: int = 3
    """Folds."""
    seed: Annotated[int, SEED] = 0
    """Seed of images and training."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.k < 2:
            found.append(f"--k must be at least 2, found {self.k}")
        if self.images % 2:
            found.append(f"--images must be even: they come in wells of two, found {self.images}")
        if self.images < 3 * self.k:
            found.append(
                f"--images must be at least 3 per fold, found {self.images} for {self.k} folds"
            )
        return found

"""Frozen dataclasses: the one source of truth for flags, defaults, help texts and what is saved.

Every field is a flag of the command line; its docstring is the help text. `problems` lists what does
not make sense, so that one error can report all of it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from cellflow.errors import ConfigError

__all__ = [
    "DemoConfig",
    "EnsembleConfig",
    "FoldsConfig",
    "MaskConfig",
    "MaskOverrides",
    "ModelConfig",
    "OofConfig",
    "OptimConfig",
    "PrepareConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "TrainConfig",
    "check_config",
    "config_differences",
    "config_to_dict",
]

MAX_LOGIT = 100.0
DEFAULT_LEARNING_RATES = {"sgd": 0.2, "adamw": 0.005}
"""Upstream's defaults: `cellpose --train` (SGD) and `cellpose.train.train_seg` (AdamW)."""


@dataclass(frozen=True)
class PrepareConfig:
    """Turn annotated images into a dataset folder."""

    source: tyro.conf.Positional[Path]
    """Folder in the Kaggle layout, with images/ and masks/, or with NAME and NAME_masks files."""
    out: Path = Path("cellflow-data")
    """Dataset folder to write."""
    table: Path | None = None
    """CSV with an id column and more columns (cell type, group), joined on the id."""
    masks: Path | None = None
    """Folder of label maps, when it is not SOURCE/masks."""
    mask_filter: str = "_masks"
    """Ending of mask file names when images and masks share one folder, as in Cellpose."""
    id_column: str = "id"
    """Column of image ids in train.csv or --table."""
    annotation_column: str = "annotation"
    """Column of run-length masks in train.csv."""
    cell_type_column: str = "cell_type"
    """Column of cell types; kept as cell_type."""
    overwrite: bool = False
    """Replace an existing dataset folder."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return [] if self.mask_filter else ["--mask_filter must not be empty"]


@dataclass(frozen=True)
class FoldsConfig:
    """Split a dataset into folds that share no group."""

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
    seed: int = 0
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
        return found + _seed_problems(self.seed)


@dataclass(frozen=True)
class ModelConfig:
    """Network."""

    pretrained_model: Annotated[str, tyro.conf.arg(aliases=["--init"])] = "none"
    """Cellpose 3 model file to start from (or the name of one in Cellpose's model folder); none: from scratch."""
    chan: int = 0
    """Channel to segment: 0 grey, 1 red, 2 green, 3 blue, as in Cellpose."""
    chan2: int = 0
    """Optional nuclear channel: 0 none, 1 red, 2 green, 3 blue."""
    diam_mean: float | None = None
    """Diameter in pixels that cells are rescaled to; without it 30, or what a pretrained model brings."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = [
            f"--{name} must be 0, 1, 2 or 3, found {value}"
            for name, value in (("chan", self.chan), ("chan2", self.chan2))
            if value not in range(4)
        ]
        if self.chan == 0 and self.chan2 > 0:
            found.append("--chan2 needs --chan 1, 2 or 3: grey images have no second channel")
        if self.diam_mean is not None:
            found += _positive("diam_mean", self.diam_mean)
            if self.pretrained_model.lower() != "none":
                found.append(
                    "--diam_mean cannot be chosen for a pretrained model: it brings its own"
                )
        return found


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Also as --sgd, --adam, and Cellpose's --SGD 0|1."""
    learning_rate: float | None = None
    """Highest learning rate; without it 0.2 for sgd and 0.005 for adamw."""
    schedule: Literal["cellpose", "cosine", "constant"] = "cellpose"
    """cellpose: up from 0 over 10 epochs, halved 10 times near the end. cosine: up over 5 % of the steps,
    then down to 1 %. constant: the same throughout."""
    weight_decay: float = 1e-5
    """Weight decay."""
    momentum: float = 0.9
    """Momentum of sgd."""
    n_epochs: int = 500
    """Epochs; one epoch is --nimg_per_epoch crops."""
    batch_size: int = 8
    """Crops per step."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate in use, with the optimizer's default filled in."""
        if self.learning_rate is None:
            return DEFAULT_LEARNING_RATES[self.optimizer]
        return self.learning_rate

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = [
            f"--{name} must be at least 1, found {value}"
            for name, value in (("n_epochs", self.n_epochs), ("batch_size", self.batch_size))
            if value < 1
        ]
        if self.learning_rate is not None:
            found += _positive("learning_rate", self.learning_rate)
        if self.schedule == "cellpose" and self.n_epochs == 1:
            found.append(
                "--schedule cellpose has a learning rate of 0 in its first epoch; with --n_epochs 1 "
                "use --schedule constant"
            )
        if not 0 <= self.weight_decay < math.inf:
            found.append(f"--weight_decay must not be negative, found {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            found.append(f"--momentum must be at least 0 and below 1, found {self.momentum}")
        return found


@dataclass(frozen=True)
class SamplingConfig:
    """Crops and augmentation."""

    nimg_per_epoch: int | None = None
    """Crops per epoch; without it as many as there are training images."""
    min_train_masks: int = 5
    """Training images with fewer cells are left out."""
    bsize: int = 224
    """Side of a training crop in pixels; a multiple of 8."""
    scale_range: float = 0.5
    """Crops are scaled by a random factor from 1 - scale_range/2 to 1 + scale_range/2."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.nimg_per_epoch is not None and self.nimg_per_epoch < 1:
            found.append(f"--nimg_per_epoch must be at least 1, found {self.nimg_per_epoch}")
        if self.min_train_masks < 0:
            found.append(f"--min_train_masks must not be negative, found {self.min_train_masks}")
        if self.bsize < 32 or self.bsize % 8:
            found.append(f"--bsize must be a multiple of 8 and at least 32, found {self.bsize}")
        if not 0 <= self.scale_range < 2:
            found.append(f"--scale_range must be at least 0 and below 2, found {self.scale_range}")
        return found


@dataclass(frozen=True)
class MaskConfig:
    """Flow to labels."""

    cellprob_threshold: float = 0.0
    """Pixels with a higher cellprob logit are foreground; lower it to find more and larger cells."""
    flow_threshold: float = 0.4
    """Masks with a larger flow error are removed; 0 turns the check off."""
    min_size: int = 15
    """Masks with fewer pixels are removed."""
    niter: int = 0
    """Steps that pixels follow the flow; 0: 200 per 30 pixels of diameter, as Cellpose."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return _mask_problems(self.cellprob_threshold, self.flow_threshold, self.niter)


@dataclass(frozen=True)
class MaskOverrides:
    """Flow to labels. Without these, what the run was trained with."""

    cellprob_threshold: float | None = None
    """Pixels with a higher cellprob logit are foreground; lower it to find more and larger cells."""
    flow_threshold: float | None = None
    """Masks with a larger flow error are removed; 0 turns the check off."""
    min_size: int | None = None
    """Masks with fewer pixels are removed."""
    niter: int | None = None
    """Steps that pixels follow the flow; 0: 200 per 30 pixels of diameter, as Cellpose."""

    def apply(self, mask: MaskConfig) -> MaskConfig:
        """A mask config with those settings replaced that were given."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(mask, **given)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return _mask_problems(
            self.cellprob_threshold or 0, self.flow_threshold or 0, self.niter or 0
        )


@dataclass(frozen=True)
class RuntimeConfig:
    """Machine. These settings are not part of what makes two runs the same."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    amp: Literal["auto", "bfloat16", "float16", "off"] = "auto"
    """Mixed precision. auto: bfloat16 where the CPU or GPU has it, else float16 on a GPU, else off."""
    workers: int | None = None
    """Processes that prepare crops; without it 0 on a CPU and up to 8 on a GPU. The crops are the same."""
    threads: int | None = None
    """CPU threads of torch; without it torch's own choice."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.workers is not None and self.workers < 0:
            found.append(f"--workers must not be negative, found {self.workers}")
        if self.threads is not None and self.threads < 1:
            found.append(f"--threads must be at least 1, found {self.threads}")
        return found


@dataclass(frozen=True)
class TrainConfig:
    """Train Cellpose's U-Net on one fold, several, or all of them."""

    fold: tuple[str, ...] = ("all",)
    """Folds to validate on, each with a model trained on the rest: 2, or 0 1 2, or all."""
    data: Annotated[Path, tyro.conf.arg(aliases=["--dir"])] = Path("cellflow-data")
    """Dataset folder with folds.csv."""
    name: str = "exp"
    """Name of the run. The same command again resumes it; another setting under a used name is refused."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    savedir: Path | None = None
    """Folder for a copy of each fold's best model, as NAME_fold_K.pt."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    eval_every: int = 50
    """Epochs between evaluations on the fold's validation images; the last epoch is always evaluated."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if not self.fold or any(part != "all" and not _is_number(part) for part in self.fold):
            found.append(
                f"--fold takes fold numbers or all, found {' '.join(self.fold) or 'nothing'}"
            )
        if self.eval_every < 1:
            found.append(f"--eval_every must be at least 1, found {self.eval_every}")
        return found + _seed_problems(self.seed) + _name_problems(self.name)


@dataclass(frozen=True)
class OofConfig:
    """Predict every image with the fold model that never saw it, and score it."""

    run: tyro.conf.Positional[str | None] = None
    """Run folder or name; without it the newest run."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    batch_size: int = 8
    """Tiles per network call."""
    unfinished: bool = False
    """Accept folds whose training has stopped before its last epoch, with their best model so far."""
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return _at_least_one("batch_size", self.batch_size)


@dataclass(frozen=True)
class EnsembleConfig:
    """Average the flows of all fold models, then make masks once."""

    images: Path
    """Image, folder of images, or dataset folder."""
    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run folders or names; without any the newest run. All folds of all of them are members."""
    name: str | None = None
    """Name of the result; without it the names of the runs joined by +."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    out: Path = Path("predictions")
    """Folder for results: OUT/NAME/masks/ID.tif and OUT/NAME/submission.csv."""
    ensembles_dir: Path = Path("ensembles")
    """Folder for the record of members and thresholds: ENSEMBLES_DIR/NAME/ensemble.json."""
    diameter: float | None = None
    """Cell diameter in pixels; without it each member's mean training diameter."""
    batch_size: int = 8
    """Tiles per network call."""
    unfinished: bool = False
    """Accept folds whose training has stopped before its last epoch, with their best model so far."""
    overwrite: bool = False
    """Replace an earlier result of this name."""
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = _at_least_one("batch_size", self.batch_size)
        if self.diameter is not None:
            found += _positive("diameter", self.diameter)
        return found + (_name_problems(self.name) if self.name is not None else [])


@dataclass(frozen=True)
class DemoConfig:
    """The whole job on built-in images: prepare, folds, train, oof, ensemble, submission."""

    out: Path = Path("cellflow-demo")
    """Folder to write; an earlier demo there is replaced."""
    images: int = 24
    """Annotated images."""
    unseen: int = 6
    """Further images that no fold sees, for the ensemble."""
    n_epochs: int = 30
    """Epochs of each fold."""
    k: int = 3
    """Folds."""
    seed: int = 0
    """Seed of images and training."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.k < 2:
            found.append(f"--k must be at least 2, found {self.k}")
        found += _at_least_one("unseen", self.unseen) + _at_least_one("n_epochs", self.n_epochs)
        found += _seed_problems(self.seed)
        if self.images % 2:
            found.append(f"--images must be even: they come in wells of two, found {self.images}")
        if self.images < 3 * self.k:
            found.append(
                f"--images must be at least 3 per fold, found {self.images} for {self.k} folds"
            )
        return found


def check_config(config: Any) -> None:
    """Raise one ConfigError with every problem of a config and of the groups inside it."""
    found = list(config.problems())
    groups: list[Any] = [getattr(config, item.name) for item in dataclasses.fields(config)]
    for group in groups:
        if dataclasses.is_dataclass(group):
            found += cast("Any", group).problems()
    if found:
        raise ConfigError.from_problems(found)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Config as plain nested dictionaries of YAML types."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two config dictionaries, as `name: old -> new`, one line each."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += config_differences(before, after, prefix=f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _mask_problems(cellprob_threshold: float, flow_threshold: float, niter: int) -> list[str]:
    found = []
    if not abs(cellprob_threshold) <= MAX_LOGIT:
        found.append(
            f"--cellprob_threshold must lie within +-{MAX_LOGIT:g}, found {cellprob_threshold}"
        )
    if not 0 <= flow_threshold < math.inf:
        found.append(f"--flow_threshold must not be negative, found {flow_threshold}")
    if niter < 0:
        found.append(f"--niter must not be negative, found {niter}")
    return found


def _seed_problems(seed: int) -> list[str]:
    if 0 <= seed < 2**63:
        return []
    return [f"--seed must not be negative and below 2**63, found {seed}"]


def _positive(name: str, value: float) -> list[str]:
    return [] if 0 < value < math.inf else [f"--{name} must be positive, found {value}"]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _at_least_one(name: str, value: int) -> list[str]:
    return [] if value >= 1 else [f"--{name} must be at least 1, found {value}"]


def _name_problems(name: str) -> list[str]:
    allowed = name and all(letter.isalnum() or letter in "._+-" for letter in name)
    if allowed and name.strip(".") and not name.startswith("-"):
        return []
    return [f"--name may have letters, digits and . _ + -, found {name!r}"]

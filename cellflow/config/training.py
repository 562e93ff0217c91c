"""Settings of `train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.checks import (
    at_least_one,
    is_number,
    name_problems,
    not_negative,
    positive,
    seconds_of,
    seed_problems,
    share,
)
from cellflow.config.shared import MaskConfig, RuntimeConfig
from cellflow.config.tracking import TrackingConfig

DEFAULT_LEARNING_RATES = {"sgd": 0.2, "adamw": 0.005}
"""Upstream's defaults: `cellpose --train` (SGD) and `cellpose.train.train_seg` (AdamW)."""


@dataclass(frozen=True)
class ModelConfig:
    """Network."""

    pretrained_model: Annotated[str, tyro.conf.arg(aliases=["--init"])] = "none"
    """Cellpose 3 model file to start from (or the name of one in Cellpose's model folder); or a run folder, each
    fold then starts from the run's model of that fold; none: from scratch."""
    chan: int = 0
    """Channel to segment: 0 grey, 1 red, 2 green, 3 blue, as in Cellpose."""
    chan2: int = 0
    """Optional nuclear channel: 0 none, 1 red, 2 green, 3 blue."""
    diam_mean: float | None = None
    """Diameter in pixels that cells are rescaled to; without it 30, or what a pretrained model brings."""
    freeze_encoder: bool = False
    """Leave the way down as the pretrained model brings it, batch-norm statistics too; train the way up."""

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
            found += positive("diam_mean", self.diam_mean)
            if self.pretrained_model.lower() != "none":
                found.append(
                    "--diam_mean cannot be chosen for a pretrained model: it brings its own"
                )
        if self.freeze_encoder and self.pretrained_model.lower() == "none":
            found.append("--freeze_encoder needs --pretrained_model: new weights must be trained")
        return found


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Also as --sgd, --adam, and Cellpose's --SGD 0|1."""
    learning_rate: float | None = None
    """Highest learning rate; without it 0.2 for sgd and 0.005 for adamw."""
    schedule: Literal["cellpose", "step", "cosine", "constant"] = "cellpose"
    """cellpose: up from 0 over 10 epochs, halved 10 times near the end. step: the same, but its first epoch
    learns too. cosine: up, then down to 1 %. constant: up, then the same."""
    warmup: float | None = None
    """Share of the steps over which cosine and constant rise; without it 0.05 for cosine, 0 for constant."""
    weight_decay: float = 1e-5
    """Weight decay."""
    momentum: float | None = None
    """Momentum of sgd; without it 0.9."""
    clip_grad: float = 0.0
    """Longer gradients (L2 norm over all weights) are shortened to this; 0: none are."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999. It is evaluated beside the weights themselves,
    and saved where it scores better. 0: none."""
    n_epochs: int = 500
    """Epochs; one epoch is --nimg_per_epoch crops."""
    patience: int = 0
    """Stop after so many evaluations in a row without a better score; 0: never."""
    batch_size: int = 8
    """Crops per step, over all GPUs."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate in use, with the optimizer's default filled in."""
        if self.learning_rate is None:
            return DEFAULT_LEARNING_RATES[self.optimizer]
        return self.learning_rate

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = at_least_one("n_epochs", self.n_epochs)
        found += at_least_one("batch_size", self.batch_size)
        if self.learning_rate is not None:
            found += positive("learning_rate", self.learning_rate)
        if self.schedule == "cellpose" and self.n_epochs == 1:
            found.append(
                "--schedule cellpose has a learning rate of 0 in its first epoch; with --n_epochs 1 "
                "use --schedule constant"
            )
        if self.warmup is not None:
            found += share("warmup", self.warmup)
            if self.schedule not in ("cosine", "constant"):
                found.append(f"--warmup has no effect on --schedule {self.schedule}")
        if self.momentum is not None:
            found += share("momentum", self.momentum)
            if self.optimizer != "sgd":
                found.append(f"--momentum has no effect on {self.optimizer}; it is for --sgd")
        found += not_negative("weight_decay", self.weight_decay)
        found += not_negative("clip_grad", self.clip_grad) + share("ema", self.ema)
        return found + not_negative("patience", self.patience)


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
    rescale: Literal["image", "dataset"] = "image"
    """What brings crops to --diam_mean first. image: each image's own median diameter, as Cellpose. dataset: the
    mean of the training images, as prediction does."""
    intensity: float = 0.0
    """Strength of random contrast, brightness, gamma, blur and noise; 1 is moderate, 0 none, as Cellpose."""
    targets: Literal["warp", "recompute"] = "warp"
    """Flows of a crop. warp: those of the image, interpolated, as Cellpose. recompute: anew from the warped
    labels, so that they have length 1."""
    balance: bool = False
    """Draw as many crops from every cell type, however many images it has."""

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
        found += not_negative("intensity", self.intensity)
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
    eval_diameter: Literal["dataset", "image"] = "dataset"
    """Diameters at evaluations. dataset: the mean of the training images, as Cellpose. image: an estimate per
    image from the network's styles of up to 64 training images, as prediction makes one where that is better."""
    time_budget: str | None = None
    """Time for this command, such as 8h or 90m, shared by its folds. It ends with an evaluation and a saved
    state; the same command goes on from there."""
    dry_run: bool = False
    """Train nothing: print the plan with the memory and time it will take, and draw one batch."""
    debug: bool = False
    """Try everything in a minute: few images, few steps, no upload, wandb offline. The run is called NAME-debug."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if not self.fold or any(part != "all" and not is_number(part) for part in self.fold):
            found.append(
                f"--fold takes fold numbers or all, found {' '.join(self.fold) or 'nothing'}"
            )
        if self.eval_every < 1:
            found.append(f"--eval_every must be at least 1, found {self.eval_every}")
        if self.debug and self.dry_run:
            found.append("--debug and --dry_run exclude each other; give one of them")
        if self.time_budget is not None and seconds_of(self.time_budget) is None:
            found.append(f"--time_budget takes 8h, 90m or 1h30m, found {self.time_budget!r}")
        return found + seed_problems(self.seed) + name_problems(self.name)

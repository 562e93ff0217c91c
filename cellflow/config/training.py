"""Settings of `train`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.checks import (
    CHANNEL,
    COUNT,
    FOLDER_NAME,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Rule,
    chosen,
    is_number,
    seconds_of,
)
from cellflow.config.metrics import SelectMetric
from cellflow.config.shared import MaskConfig, RuntimeConfig, SchedulerText
from cellflow.config.tracking import TrackingConfig
from cellflow.errors import ConfigError

DEFAULT_LEARNING_RATES = {"sgd": 0.2, "adamw": 0.005}
"""Upstream's defaults: `cellpose --train` (SGD) and `cellpose.train.train_seg` (AdamW)."""
CROP_SIDE = Rule(
    "must be a multiple of 8 and at least 32", lambda value: value >= 32 and value % 8 == 0
)
SCALE_RANGE = Rule("must be at least 0 and below 2", lambda value: 0 <= value < 2)


@dataclass(frozen=True)
class ModelConfig:
    """Network.

    Examples
    --------
    >>> from cellflow import ModelConfig
    >>> from cellflow.config import check_config
    >>> ModelConfig(chan=2, chan2=3).chan2
    3
    >>> check_config(ModelConfig(chan2=3))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --chan2 needs --chan too, 1 or more: grey images have no second channel
    """

    pretrained_model: Annotated[str, tyro.conf.arg(aliases=["--init"])] = "none"
    """Model to start from: a Cellpose 3 model file; a name such as cyto3, nuclei or livecell, whose file is fetched
    from Cellpose's server once, into Cellpose's model folder; a run folder, each fold then starts from the run's
    model of that fold; none: from scratch."""
    chan: Annotated[int | str, CHANNEL] = 0
    """Channel to segment: 0 grey, 1 red, 2 green, 3 blue, as in Cellpose; any further number; or its name in the
    files, such as DAPI."""
    chan2: Annotated[int | str, CHANNEL] = 0
    """Optional nuclear channel: 0 none, 1 red, 2 green, 3 blue, any further number, or a name."""
    diam_mean: Annotated[float | None, POSITIVE] = None
    """Diameter in pixels that cells are rescaled to; without it 30, or what a pretrained model brings."""
    freeze_encoder: bool = False
    """Keep the encoder as in the pretrained model, batch-norm statistics included; train the decoder only."""

    @property
    def channels(self) -> tuple[int, int]:
        """Numbers of both channels; `train` finds those of names before anything is made of them."""
        chan, chan2 = self.chan, self.chan2
        if isinstance(chan, str) or isinstance(chan2, str):
            raise ConfigError(f"--chan {chan} --chan2 {chan2}: expected numbers, found a name.")
        return chan, chan2

    @property
    def is_pretrained(self) -> bool:
        """Whether training starts from a model file, or from the models of a run."""
        return self.pretrained_model.lower() != "none"

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.chan == 0 and self.chan2 != 0:
            found.append("--chan2 needs --chan too, 1 or more: grey images have no second channel")
        if self.diam_mean is not None and self.is_pretrained:
            found.append("--diam_mean cannot be chosen for a pretrained model: it brings its own")
        if self.freeze_encoder and not self.is_pretrained:
            found.append("--freeze_encoder needs --pretrained_model: new weights must be trained")
        return found


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer.

    Examples
    --------
    >>> from cellflow import OptimConfig
    >>> from cellflow.config import check_config
    >>> OptimConfig(optimizer="adamw").peak_learning_rate
    0.005
    >>> check_config(OptimConfig(optimizer="adamw", momentum=0.9))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --momentum has no effect on adamw; it is for --sgd
    """

    optimizer: Literal["sgd", "adamw"] | None = None
    """Also as --sgd, --adam, and Cellpose's --SGD 0|1. Without it what the --recipe says: adamw, or Cellpose's sgd."""
    learning_rate: Annotated[float | None, POSITIVE] = None
    """Highest learning rate; without it 0.2 for sgd and 0.005 for adamw, under --recipe auto 0.001 from a model."""
    schedule: Literal["cellpose", "step", "cosine", "constant"] | None = None
    """cellpose: up from 0 over 10 epochs, halved 10 times near the end. step: the same, but its first epoch
    learns too. cosine: up, then down to 1 %. constant: up, then the same. Without it what the --recipe
    says; Cellpose's: cellpose."""
    warmup: Annotated[float | None, SHARE] = None
    """Share of the steps over which cosine and constant rise; without it 0.05 for cosine, 0 for constant, and 0.1 for
    the constant one of --recipe auto."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-5
    """Weight decay."""
    momentum: Annotated[float | None, SHARE] = None
    """Momentum of sgd; without it 0.9."""
    clip_grad: Annotated[float, NOT_NEGATIVE] = 0.0
    """Longer gradients (L2 norm over all weights) are shortened to this; 0: none are."""
    ema: Annotated[float | None, SHARE] = None
    """Decay of a moving average of the weights, such as 0.999. It is evaluated beside the weights themselves,
    and saved where it scores better. 0: none. Without it what the --recipe says; Cellpose's: 0."""
    n_epochs: Annotated[int, COUNT] = 500
    """Epochs; one epoch is --nimg_per_epoch crops."""
    patience: Annotated[int, NOT_NEGATIVE] = 0
    """Stop after this many evaluations in a row without a better score; 0: never."""
    batch_size: Annotated[int | None, COUNT] = None
    """Crops per step, over all GPUs; without it what the --recipe says; Cellpose's: 8."""

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate in use, with the optimizer's default filled in."""
        if self.learning_rate is None:
            return DEFAULT_LEARNING_RATES[chosen(self.optimizer)]
        return self.learning_rate

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each; of settings left open to a recipe once they are filled."""
        found = []
        if self.schedule == "cellpose" and self.n_epochs == 1:
            found.append(
                "--schedule cellpose has a learning rate of 0 in its first epoch; with --n_epochs 1 "
                "use --schedule constant"
            )
        if self.warmup is not None and self.schedule not in ("cosine", "constant", None):
            found.append(f"--warmup has no effect on --schedule {self.schedule}")
        if self.momentum is not None and self.optimizer == "adamw":
            found.append(f"--momentum has no effect on {self.optimizer}; it is for --sgd")
        return found


@dataclass(frozen=True)
class SamplingConfig:
    """Crops and augmentation.

    Examples
    --------
    >>> from cellflow import SamplingConfig
    >>> from cellflow.config import check_config
    >>> check_config(SamplingConfig(bsize=100))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --bsize must be a multiple of 8 and at least 32, found 100
    """

    nimg_per_epoch: Annotated[int | None, COUNT] = None
    """Crops per epoch; without it as many as there are training images."""
    min_train_masks: Annotated[int, NOT_NEGATIVE] = 5
    """Training images with fewer cells are left out."""
    bsize: Annotated[int, CROP_SIDE] = 224
    """Side of a training crop in pixels; a multiple of 8."""
    scale_range: Annotated[float, SCALE_RANGE] = 0.5
    """Crops are scaled by a random factor from 1 - scale_range/2 to 1 + scale_range/2."""
    rescale: Literal["image", "dataset"] | None = None
    """What brings crops to --diam_mean first. image: each image's own median diameter, as Cellpose. dataset: the
    mean of the training images, as prediction does. Without it what the --recipe says; Cellpose's: image."""
    intensity: Annotated[float | None, NOT_NEGATIVE] = None
    """Strength of random contrast, brightness, gamma, blur and noise; 1 is moderate, 0 none, as Cellpose. Without it
    what the --recipe says; Cellpose's: 0."""
    targets: Literal["warp", "recompute"] | None = None
    """Flows of a crop. warp: those of the image, interpolated, as Cellpose. recompute: anew from the warped
    labels, so that they have length 1. Without it what the --recipe says; Cellpose's: warp."""
    balance: bool = False
    """Draw as many crops from every cell type, however many images it has."""


@dataclass(frozen=True)
class TrainConfig:
    """Train Cellpose's U-Net on one fold, several, or all of them.

    Examples
    --------
    >>> from cellflow import OptimConfig, TrainConfig
    >>> from cellflow.config import check_config
    >>> config = TrainConfig(fold=("0", "1"), optim=OptimConfig(n_epochs=100))
    >>> config.name, config.optim.n_epochs
    ('exp', 100)
    >>> check_config(TrainConfig(fold=("first",)))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --fold takes fold numbers (such as 2, or 0 1), all or none, found first
    """

    fold: tuple[str, ...] = ("all",)
    """Folds to validate on, each with a model trained on the rest: 2, or 0 1 2, or all. none: one network on all images
    that are not reserved, as run NAME-final; the folds of NAME vouch for it, and it takes their thresholds."""
    data: Annotated[Path, tyro.conf.arg(aliases=["--dir"])] = Path("cellflow-data")
    """Dataset folder with folds.csv."""
    recipe: Literal["cellpose", "auto"] | None = None
    """What a training does where no other setting says so. cellpose: what Cellpose does. auto: AdamW and what suits the
    dataset and the number of epochs, see docs/training.md; with --sgd the same as cellpose. Without it what the run
    was started with; auto for a new one."""
    name: Annotated[str, FOLDER_NAME] = "exp"
    """Name of the run. The same command again resumes it; another setting under a used name is refused."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    savedir: Path | None = None
    """Folder for a copy of each fold's best model, as NAME_fold_K.pt."""
    seed: Annotated[int, SEED] = 0
    """Seed of weights, order and augmentation."""
    eval_every: Annotated[int, COUNT] = 50
    """Epochs between evaluations on the fold's validation images; the last epoch is always evaluated."""
    eval_diameter: Literal["dataset", "image"] | None = None
    """Diameters at evaluations. dataset: the mean of the training images, as Cellpose. image: an estimate per
    image from the network's styles of up to 64 training images, as prediction makes one where that is better. Without
    it what the --recipe says; Cellpose's: dataset."""
    select_metric: SelectMetric = "competition"
    """What chooses the best model at an evaluation, as a mean over images: competition score; ap50, ap75:
    competition precision TP / (TP + FP + FN) at that IoU; f1_50, f1_75; pq; seg. Tables keep the competition score."""
    time_budget: str | None = None
    """Time for this command, such as 8h or 90m, shared by its folds. It ends with an evaluation and a saved
    state; the same command goes on from there."""
    pseudo: Path | None = None
    """Train on images without annotation too: a folder that cellflow pseudo or distil wrote. Each fold takes what the
    models of the same fold made of them, which have not seen its validation images; targets of distil --final are for
    --fold none."""
    pseudo_weight: Annotated[float, POSITIVE] = 0.5
    """How often images without annotation are drawn, all of them together, for each time that annotated ones are. They
    come on top: 0.5 makes an epoch half as long again."""
    scheduler: SchedulerText = None
    """Where folds are trained, each by a worker: local:N, processes of this machine; tcp://HOST:PORT, a Dask cluster
    that runs; slurm:N, jobs. A lost worker's fold goes on elsewhere. Without it in this process."""
    download: bool = True
    """Fetch the file of a --pretrained_model that is given by name, where Cellpose's model folder lacks it."""
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

    @property
    def is_final(self) -> bool:
        """Whether it is one network on all images, which no fold validates."""
        return self.fold == ("none",)

    def of_fold(self, fold: int) -> TrainConfig:
        """The same for one of its folds."""
        return self if self.is_final else replace(self, fold=(str(fold),))

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        numbers = [part for part in self.fold if part != "all"]
        if not self.fold or not (self.is_final or all(map(is_number, numbers))):
            found.append(
                "--fold takes fold numbers (such as 2, or 0 1), all or none, found "
                f"{' '.join(self.fold) or 'nothing'}"
            )
        if self.debug and self.dry_run:
            found.append("--debug and --dry_run exclude each other; give one of them")
        if self.debug and self.pseudo is not None:
            found.append(
                "--debug takes a few images of the dataset, for which --pseudo has no targets"
            )
        if self.time_budget is not None and seconds_of(self.time_budget) is None:
            found.append(
                f"--time_budget takes a time with its unit, such as 8h, 90m, 1h30m or 45s, found {self.time_budget}"
            )
        return found

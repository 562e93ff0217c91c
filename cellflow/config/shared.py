"""Settings that several commands share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from cellflow.config.checks import COUNT, NOT_NEGATIVE, SCHEDULER, SHARE, Rule

MAX_PIXELS = 1_000_000_000
"""Height times width of the largest image that is read without being asked for."""
MAX_LOGIT = 100.0
LOGIT = Rule(f"must lie within +-{MAX_LOGIT:g}", lambda value: abs(value) <= MAX_LOGIT)
PART = Rule("must be above 0 and at most 1", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class MaskOverrides:
    """Flow to labels. Without these, what the run was trained with.

    Examples
    --------
    >>> from cellflow import MaskConfig, MaskOverrides
    >>> MaskOverrides(min_size=40).apply(MaskConfig()).min_size
    40
    """

    cellprob_threshold: Annotated[float | None, LOGIT] = None
    """Pixels with a higher cellprob logit are foreground; lower it to find more and larger cells."""
    flow_threshold: Annotated[float | None, NOT_NEGATIVE] = None
    """Masks with a larger flow error are removed; 0 turns the check off."""
    min_size: int | None = None
    """Masks with fewer pixels are removed."""
    niter: Annotated[int | None, NOT_NEGATIVE] = None
    """Steps that pixels follow the flow; 0: 200 per 30 pixels of diameter, as Cellpose."""
    max_size_fraction: Annotated[float | None, PART] = None
    """Masks with more than this part of the image are removed."""
    score_per_pixel: Annotated[float | None, SHARE] = None
    """Masks whose pixels have a lower mean cell probability (0 to 1) are removed; 0 turns the check off."""
    fill_holes: bool | None = None
    """Fill holes in masks."""

    def apply(self, mask: MaskConfig) -> MaskConfig:
        """A mask config with those settings replaced that were given."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(mask, **given)


@dataclass(frozen=True)
class MaskConfig(MaskOverrides):
    """Flow to labels.

    Examples
    --------
    >>> from cellflow import MaskConfig
    >>> from cellflow.config import check_config
    >>> check_config(MaskConfig(flow_threshold=-1))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --flow_threshold must not be negative, found -1
    """

    cellprob_threshold: Annotated[float, LOGIT] = 0.0
    flow_threshold: Annotated[float, NOT_NEGATIVE] = 0.4
    min_size: int = 15
    niter: Annotated[int, NOT_NEGATIVE] = 0
    max_size_fraction: Annotated[float, PART] = 0.4
    score_per_pixel: Annotated[float, SHARE] = 0.0
    fill_holes: bool = True


@dataclass(frozen=True)
class RuntimeConfig:
    """Machine. These settings are not part of what makes two runs the same.

    Examples
    --------
    >>> from cellflow import RuntimeConfig
    >>> from cellflow.config import check_config
    >>> check_config(RuntimeConfig(threads=0))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --threads must be at least 1, found 0
    """

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    amp: Literal["auto", "bfloat16", "float16", "off"] = "auto"
    """Mixed precision. auto: bfloat16 where the CPU or GPU has it, else float16 on a GPU, else off."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """What runs networks for predictions. auto: OpenVINO on x86 CPUs where it is installed, else torch."""
    workers: Annotated[int | None, NOT_NEGATIVE] = None
    """Processes that prepare crops; without it 0 on a CPU and up to 8 on a GPU. The crops are the same."""
    threads: Annotated[int | None, COUNT] = None
    """CPU threads of torch; without it torch's own choice."""


SchedulerText = Annotated[str | None, SCHEDULER]
"""Type of `scheduler` in the configs of commands that run tasks elsewhere."""

Policy = Literal["dataset", "type", "image"]


POLICIES: tuple[Policy, ...] = ("dataset", "type", "image")

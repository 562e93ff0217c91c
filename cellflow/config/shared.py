"""Settings that several commands share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from cellflow.config.checks import not_negative, share

MAX_LOGIT = 100.0


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
    max_size_fraction: float = 0.4
    """Masks with more than this part of the image are removed."""
    score_per_pixel: float = 0.0
    """Masks whose pixels have a lower mean cell probability (0 to 1) are removed; 0 turns the check off."""
    fill_holes: bool = True
    """Fill holes in masks."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return _mask_problems(self)


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
    max_size_fraction: float | None = None
    """Masks with more than this part of the image are removed."""
    score_per_pixel: float | None = None
    """Masks whose pixels have a lower mean cell probability (0 to 1) are removed; 0 turns the check off."""
    fill_holes: bool | None = None
    """Fill holes in masks."""

    def apply(self, mask: MaskConfig) -> MaskConfig:
        """A mask config with those settings replaced that were given."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(mask, **given)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return _mask_problems(self.apply(MaskConfig()))


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


def _mask_problems(mask: MaskConfig) -> list[str]:
    found = []
    if not abs(mask.cellprob_threshold) <= MAX_LOGIT:
        found.append(
            f"--cellprob_threshold must lie within +-{MAX_LOGIT:g}, found {mask.cellprob_threshold}"
        )
    found += not_negative("flow_threshold", mask.flow_threshold)
    found += not_negative("niter", mask.niter)
    if not 0 < mask.max_size_fraction <= 1:
        found.append(
            f"--max_size_fraction must be above 0 and at most 1, found {mask.max_size_fraction}"
        )
    return found + share("score_per_pixel", mask.score_per_pixel)


Policy = Literal["dataset", "type", "image"]


POLICIES: tuple[Policy, ...] = ("dataset", "type", "image")

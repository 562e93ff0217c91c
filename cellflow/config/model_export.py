"""Settings of `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.checks import NOT_EMPTY, NOT_NEGATIVE

Target = Literal["cellpose", "archive", "bioimageio", "onnx"]
LICENSE = "CC-BY-4.0"


@dataclass(frozen=True, kw_only=True)
class ModelExportConfig:
    """Write the models of a run in a form that other programs, or another machine, take.

    cellpose: model files for Cellpose 3 and its GUI. archive: one zip with all that a prediction needs, for
    `cellflow predict --model FILE.zip`. bioimageio: packages for the BioImage Model Zoo. onnx: networks for any
    program that runs ONNX.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import ModelExportConfig
    >>> from cellflow.config import check_config
    >>> check_config(ModelExportConfig(run="exp", to="archive", out=Path("exp")))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --out is a file that ends in .zip for --to archive, found 'exp'
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Run by name or folder; without it the newest run."""
    to: Target
    """What to write."""
    fold: Annotated[tuple[int, ...], NOT_NEGATIVE] = ()
    """Folds whose models are written; without it all."""
    out: Path | None = None
    """What to write: a file for archive, else a folder; without it RUN.zip or RUN-cellpose, RUN-bioimageio, RUN-onnx
    here."""
    overwrite: bool = False
    """Replace what is there."""
    merged: bool = False
    """For onnx: also one file that averages the outputs of all folds, merged.onnx."""
    author: Annotated[tuple[str, ...], NOT_EMPTY] = ()
    """Who made the model, for the model card and a bioimage.io package; without it nobody is named."""
    license: Annotated[str, NOT_EMPTY] = LICENSE
    """Licence of the model as SPDX names it, such as CC0-1.0 or MIT, for the model card and a bioimage.io
    package."""
    sample: Path | None = None
    """Image that a bioimage.io package brings along, for its test and its cover: everybody will see it. Without it
    one that is generated."""
    unfinished: bool = False
    """Accept a run with missing folds, and folds whose training has stopped before its last epoch, with their best
    model so far."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    ensembles_dir: Path = Path("ensembles")
    """Folder with calibrations of ensembles."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.to == "archive" and self.out is not None and self.out.suffix.lower() != ".zip":
            found.append(
                f"--out is a file that ends in .zip for --to archive, found {str(self.out)!r}"
            )
        if self.merged and self.to != "onnx":
            found.append(f"--merged is for --to onnx, found --to {self.to}")
        if self.sample is not None and self.to != "bioimageio":
            found.append(f"--sample is for --to bioimageio, found --to {self.to}")
        if len(set(self.fold)) < len(self.fold):
            found.append(f"--fold names a fold twice: {' '.join(map(str, self.fold))}")
        return found

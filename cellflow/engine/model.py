"""A trained model in Python: `load_model`, `predict`, and Cellpose's own shape of call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskOverrides, RuntimeConfig, check_config
from cellflow.engine.machine import choose_machine
from cellflow.engine.models import Opened, check_type, open_models
from cellflow.engine.prediction import Prediction
from cellflow.engine.segment import FLIPS, Segmenter
from cellflow.engine.styles import image_style
from cellflow.errors import DataError

__all__ = ["Model", "load_model"]


@dataclass(frozen=True, eq=False)
class Model:
    """Networks with the thresholds, diameter policy and cell types that go with them.

    Get one with `load_model`.
    """

    opened: Opened
    segmenter: Segmenter

    def predict(
        self,
        image: NDArray[Any],
        *,
        diameter: float | None = None,
        cell_type: str = "",
        tta: bool = False,
        cellprob_threshold: float | None = None,
        flow_threshold: float | None = None,
        min_size: int | None = None,
        niter: int | None = None,
    ) -> Prediction:
        """Segment one image.

        Parameters
        ----------
        image : (H, W) or (H, W, C) ndarray
            Any numeric type; normalised here.
        diameter : float, optional
            Cell diameter in pixels; by default what the model's policy says.
        cell_type : str
            Cell type; by default told from the image, where the model knows types.
        tta : bool
            Average over flips of the image: four times the time.
        cellprob_threshold, flow_threshold, min_size, niter : number, optional
            By default those that were calibrated, else those of the training.

        Returns
        -------
        Prediction
            `flow`, `cellprob`, `labels`, `diameter`, `cell_type`, and `cells`, a table with a row per cell.

        Raises
        ------
        DataError
            If the image is not of that shape, lacks a channel, or holds NaN.
        """
        overrides = MaskOverrides(cellprob_threshold, flow_threshold, min_size, niter)
        check_config(overrides)
        thresholds = self.opened.thresholds.override(overrides)
        segmenter = dataclasses.replace(
            self.segmenter,
            mask=thresholds.shared,
            per_type=thresholds.per_type,
            diameter=diameter or self.opened.diameter,
            cell_type=check_type(cell_type, self.opened),
            flips=FLIPS if tta else ("",),
        )
        return segmenter.predict(image)

    def eval(
        self,
        image: NDArray[Any] | Sequence[NDArray[Any]],
        *,
        diameter: float | None = None,
        channels: Sequence[int] | None = None,
        cellprob_threshold: float | None = None,
        flow_threshold: float | None = None,
        min_size: int | None = None,
        niter: int | None = None,
    ) -> tuple[Any, Any, Any]:
        """Segment one image or a list, called and answered as ``CellposeModel.eval``.

        Parameters
        ----------
        image : ndarray or list of ndarray
            As in `predict`.
        diameter, cellprob_threshold, flow_threshold, min_size, niter
            As in `predict`; a diameter of 0 is none.
        channels : [int, int], optional
            The channels the model was trained on, which travel with it. A file of Cellpose does not say
            its channels, and takes these.

        Returns
        -------
        masks : (H, W) int32 ndarray
        flows : list
            None for Cellpose's picture of the flow, the flow ``(2, H, W)``, the logit ``(H, W)``.
        styles : (256,) float32 ndarray
            Style of the first member.
            For a list of images, a list of each.
        """
        if channels is not None:
            return self._with_channels(channels).eval(
                image, diameter=diameter, cellprob_threshold=cellprob_threshold,
                flow_threshold=flow_threshold, min_size=min_size, niter=niter,
            )  # fmt: skip
        member = self.segmenter.members[0]
        if isinstance(image, (list, tuple)):
            rows = [
                self.eval(
                    item,
                    diameter=diameter,
                    cellprob_threshold=cellprob_threshold,
                    flow_threshold=flow_threshold,
                    min_size=min_size,
                    niter=niter,
                )
                for item in image
            ]
            masks, flows, styles = zip(*rows, strict=True) if rows else ((), (), ())
            return list(masks), list(flows), list(styles)
        array = np.asarray(image)
        result = self.predict(
            array,
            diameter=diameter or None,
            cellprob_threshold=cellprob_threshold,
            flow_threshold=flow_threshold,
            min_size=min_size,
            niter=niter,
        )
        style = image_style(member, array, amp=self.segmenter.amp)
        return result.labels, [None, result.flow, result.cellprob], style

    def _with_channels(self, channels: Sequence[int]) -> Model:
        """The model for channels that were named; those of the training where it says them."""
        chan, chan2 = channels
        members = []
        for member in self.segmenter.members:
            if member.facts and (member.chan, member.chan2) != (chan, chan2):
                raise DataError(
                    f"channels: this model was trained on {[member.chan, member.chan2]}, found "
                    f"{list(channels)}. Leave them out: they travel with the model."
                )
            members.append(dataclasses.replace(member, chan=chan, chan2=chan2))
        return Model(self.opened, dataclasses.replace(self.segmenter, members=members))


def load_model(
    model: Path | str | Sequence[Path | str] | None = None,
    *,
    runs_dir: Path | str = "runs",
    ensembles_dir: Path | str = "ensembles",
    device: str = "auto",
    amp: str = "auto",
    unfinished: bool = False,
) -> Model:
    """Load all folds of a run, several runs, one checkpoint, or a Cellpose 3 model file.

    Parameters
    ----------
    model : path or str, or a list of them, optional
        Run folder, name of a run, model file; several are averaged. Without it the newest run.
    runs_dir, ensembles_dir : path
        Where runs and calibrations of ensembles lie.
    device : str
        auto, cpu, cuda, cuda:1, mps.
    amp : {"auto", "bfloat16", "float16", "off"}
        Mixed precision.
    unfinished : bool
        Also take folds whose training has not reached its last epoch, with their best model so far.

    Raises
    ------
    RunError, CheckpointError
        If there is no such model, or it is damaged. Folds that a run lacks are left out with a warning.
    """
    runtime = RuntimeConfig(device=device, amp=amp)  # type: ignore[arg-type]
    check_config(runtime)
    machine = choose_machine(runtime)
    named = [model] if isinstance(model, (str, Path)) else list(model or ())
    opened = open_models(
        [str(item) for item in named],
        machine.device,
        runs_dir=Path(runs_dir),
        ensembles_dir=Path(ensembles_dir),
        unfinished=unfinished,
    )
    segmenter = Segmenter(
        opened.members,
        opened.thresholds.shared,
        amp=machine.amp,
        policy=opened.policy,
        diameter=opened.diameter,
        per_type=opened.thresholds.per_type,
        average=opened.average,
    )
    return Model(opened, segmenter)

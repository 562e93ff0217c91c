"""A trained model in Python: `load_model`, `predict`, and Cellpose's own shape of call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.config import MaskOverrides, RuntimeConfig, check_config
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.cellpose_call import (
    Answer,
    answer_of,
    check_left_out,
    normalization_of,
    nth,
    stack_answers,
)
from cellflow.engine.segmentation.channels import warn_of_grey
from cellflow.engine.segmentation.given_images import as_image, as_planes, is_several
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.open_models import Opened, check_type, open_models
from cellflow.engine.segmentation.segmenter import FLIPS, Segmenter
from cellflow.errors import DataError
from cellflow.storage.sizes import plural
from cellflow.types import shorten

__all__ = ["Model", "load_model"]

_STACKS_AXES = 5


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """Networks with the thresholds, diameter policy and cell types that go with them.

    Get one with `load_model`.

    Examples
    --------
    All folds of the run ``runs/exp`` as one model:

    >>> import numpy as np
    >>> from cellflow import load_model
    >>> model = load_model("exp", device="cpu")
    >>> one = model.predict(np.zeros((40, 50)), diameter=25)
    >>> one.labels.shape, one.diameter
    ((40, 50), 25.0)
    >>> len(model.predict([np.zeros((40, 50)), np.zeros((30, 30, 3))]))
    2
    """

    opened: Opened
    segmenter: Segmenter

    def __repr__(self) -> str:
        opened = self.opened
        device = next(opened.members[0].net.parameters()).device
        sizes = sorted({f"{member.diam_labels:.1f}" for member in opened.members}, key=float)
        diameter = (
            f"{opened.diameter:.1f}" if opened.diameter else "-".join(sizes[:1] + sizes[1:][-1:])
        )
        members, source = plural(len(opened.members), "member"), opened.thresholds.source
        return (
            f"Model({shorten(opened.name, 30)!r}, {members}, {device}, diameter {diameter}, "
            f"thresholds: {shorten(source, 45)})"
        )

    def predict(
        self,
        image: Any,
        *,
        diameter: float | None = None,
        diameter_rounds: int = 0,
        cell_type: str = "",
        tta: bool = False,
        cellprob_threshold: float | None = None,
        flow_threshold: float | None = None,
        min_size: int | None = None,
        niter: int | None = None,
        channel_axis: int | None = None,
    ) -> Any:
        """Segment one image, or each image of a list.

        Parameters
        ----------
        image : (H, W) or (H, W, C) array_like, path, str or PIL image; or a list of them
            Numbers of any type, up to four channels; normalised here. A stack is refused: which of its
            axes holds planes and which channels cannot be told, and each plane is an image.
        diameter : float, optional
            Cell diameter in pixels; by default what the model's policy says.
        diameter_rounds : int
            Times that the image may be predicted again at the diameter of the cells found, until that rests; not
            beside a diameter that is given, or that the thresholds were calibrated for.
        cell_type : str
            Cell type; by default told from the image, where the model knows types.
        tta : bool
            Average over flips of the image: four times the time.
        cellprob_threshold, flow_threshold, min_size, niter : number, optional
            By default those that were calibrated, else those of the training.
        channel_axis : int, optional
            Which axis holds the channels where it is not the last, or there are more than four.

        Returns
        -------
        Prediction, or a list of them for a list
            `flow`, `cellprob`, `labels`, `diameter`, `cell_type`, and `cells`, a table with a row per cell.

        Raises
        ------
        DataError
            If the image is not of that shape, cannot be read, lacks a channel, or holds NaN.
        """
        given = _positive("diameter", diameter) or self.opened.diameter
        _check_rounds(diameter_rounds, given)
        segmenter = dataclasses.replace(
            self._segmenter(MaskOverrides(cellprob_threshold, flow_threshold, min_size, niter)),
            diameter=given,
            rounds=diameter_rounds,
            cell_type=check_type(cell_type, self.opened),
            flips=FLIPS if tta else ("",),
        )
        several = is_several(image)
        results, channels = [], {}
        for place, item in enumerate(image if several else [image]):
            array = as_image(item, channel_axis)
            results.append(segmenter.predict(array))
            name = str(item) if isinstance(item, str | Path) else f"image {place}"
            channels[name] = array.shape[2] if array.ndim == 3 else 1
        member = self.opened.members[0]
        warn_of_grey(channels, member.chan, member.chan2)
        return results if several else results[0]

    def eval(
        self,
        x: Any,
        batch_size: int = 8,
        resample: bool = True,
        channels: Sequence[Any] | None = None,
        *,
        channel_axis: int | None = None,
        z_axis: int | None = None,
        normalize: bool | dict[str, Any] = True,
        invert: bool = False,
        rescale: float | Sequence[float] | None = None,
        diameter: float | Sequence[float] | None = None,
        flow_threshold: float | None = None,
        cellprob_threshold: float | None = None,
        do_3D: bool = False,
        anisotropy: float | None = None,
        flow3D_smooth: float = 0,
        stitch_threshold: float = 0.0,
        min_size: int | None = None,
        max_size_fraction: float | None = None,
        niter: int | None = None,
        augment: bool = False,
        tile_overlap: float = 0.1,
        bsize: int = 224,
        interp: bool = True,
        compute_masks: bool = True,
        progress: Any = None,
    ) -> tuple[Any, Any, Any]:
        """Segment images, called and answered as ``CellposeModel.eval`` of Cellpose 3.

        Parameters
        ----------
        x : array_like, path, str or PIL image; or a list of them
            Axes are found as Cellpose finds them: of three, the shortest holds channels, or planes where
            it is longer than 5. Every plane is segmented by itself.
        batch_size : int
            Tiles per network call.
        channels : [int, int], optional
            The channels the model was trained on, which travel with it. A file of Cellpose does not say
            its channels, and takes these. For a list of images also one pair for each.
        channel_axis, z_axis : int, optional
            Which axes hold channels and planes.
        normalize : bool or dict
            False leaves values as they are. Of Cellpose's dictionary ``normalize``, ``percentile``,
            ``lowhigh`` and ``invert``.
        invert : bool
            Exchange dark and bright after normalisation.
        rescale : float, optional
            Network pixels per image pixel, where no diameter is given.
        diameter : float, optional
            Cell diameter in pixels; 0 is none. For a list of images, this and `rescale` may be lists.
        flow_threshold, cellprob_threshold, min_size, max_size_fraction, niter : number, optional
            By default those that were calibrated, else those of the training. A minimum size of -1 is 0.
        augment : bool
            Flip every other tile, and overlap tiles by half.
        compute_masks : bool
            False leaves the masks out, which are then an empty array.
        progress : object, optional
            Its ``setValue`` is called with the percentage of images done, as of a ``QProgressBar``.
        resample, do_3D, anisotropy, flow3D_smooth, stitch_threshold, tile_overlap, bsize, interp
            Only as they are by default: masks are made at the size of the image, in 2D, on the tiles that
            Cellpose has by default.

        Returns
        -------
        masks : (H, W) uint16 ndarray, uint32 from 65,536 cells on
        flows : list
            Picture of the flow ``(H, W, 3)`` uint8, flow ``(2, H, W)`` and logit ``(H, W)`` float32.
        styles : (256,) float32 ndarray
            Style of the first member.
            For a stack all of them with an axis for the planes, in front of ``(H, W)`` and of 256. For a
            list of images, a list of each.

        Raises
        ------
        DataError
            If an argument asks for what cannot be done, or an image cannot be used.
        """
        check_left_out(
            {
                "resample": resample, "do_3D": do_3D, "anisotropy": anisotropy,
                "flow3D_smooth": flow3D_smooth, "stitch_threshold": stitch_threshold,
                "tile_overlap": tile_overlap, "bsize": bsize, "interp": interp,
            }
        )  # fmt: skip
        if batch_size < 1:
            raise DataError(f"batch_size: expected 1 or more, found {batch_size}")
        smallest = None if min_size is None else max(0, min_size)
        mask = MaskOverrides(cellprob_threshold, flow_threshold, smallest, niter, max_size_fraction)
        segmenter = dataclasses.replace(
            self._segmenter(mask),
            batch_size=batch_size,
            normalization=normalization_of(normalize, invert=invert),
            augment=augment,
        )
        # of an array with so many axes Cellpose takes the first for a list
        several = is_several(x) or (isinstance(x, np.ndarray) and x.squeeze().ndim == _STACKS_AXES)
        images = list(x) if several else [x]
        answers = []
        for place, item in enumerate(images):
            pair = _channels_of(channels, place, len(images))
            size = nth(diameter, place, len(images), "diameter")
            factor = nth(rescale, place, len(images), "rescale")
            members = segmenter.members if pair is None else _with_channels(segmenter.members, pair)
            for_image = dataclasses.replace(
                segmenter, members=members, diameter=self._diameter(size, factor)
            )
            stack = as_planes(item, channel_axis, z_axis)
            planes = [answer_of(for_image, plane, masks=compute_masks) for plane in stack.images]
            answers.append(
                stack_answers(planes, masks=compute_masks) if stack.stacked else planes[0]
            )
            if progress is not None:
                progress.setValue(round(100 * (place + 1) / len(images)))
        if not several:
            return answers[0]
        return Answer(
            *([answer[part] for answer in answers] for part in range(len(Answer._fields)))
        )

    def _segmenter(self, overrides: MaskOverrides) -> Segmenter:
        """The segmenter with thresholds that were given, which go before all others."""
        check_config(overrides)
        thresholds = self.opened.thresholds.override(overrides)
        return dataclasses.replace(
            self.segmenter, mask=thresholds.shared, per_type=thresholds.per_type
        )

    def _diameter(self, diameter: float | None, rescale: float | None) -> float | None:
        """The diameter for an image of `eval`; None leaves it to the policy."""
        given, factor = _positive("diameter", diameter), _positive("rescale", rescale)
        if given:
            return given
        if not factor:
            return self.opened.diameter
        sizes = {member.diam_mean for member in self.opened.members}
        if len(sizes) > 1:
            raise DataError(
                f"rescale: the members work at different diameters ({', '.join(map(str, sorted(sizes)))} "
                "pixels); give the diameter of the cells instead"
            )
        return sizes.pop() / factor


def _with_channels(members: Sequence[Member], channels: Sequence[int]) -> list[Member]:
    """The members for channels that were named; those of the training where they say them."""
    chan, chan2 = channels
    for member in members:
        if "chan" in member.facts and (member.chan, member.chan2) != (chan, chan2):
            raise DataError(
                f"channels: this model was trained on {[member.chan, member.chan2]}, found "
                f"{list(channels)}. Leave them out: they travel with the model.",
                expected=[member.chan, member.chan2], found=list(channels),
            )  # fmt: skip
    return [dataclasses.replace(member, chan=chan, chan2=chan2) for member in members]


def _channels_of(channels: Sequence[Any] | None, place: int, count: int) -> tuple[int, int] | None:
    """The pair of channels of one of several images; None where none was given."""
    if channels is None:
        return None
    try:
        pairs = np.asarray(channels, int).reshape(-1, 2)
    except (TypeError, ValueError):
        raise DataError(
            f"channels: expected two whole numbers, such as [0, 0], or two for each image, found {channels}"
        ) from None
    if len(pairs) not in (1, count):
        raise DataError(f"channels: expected one pair or {count}, found {len(pairs)}")
    chan, chan2 = pairs[place if len(pairs) > 1 else 0].tolist()
    return chan, chan2


def _positive(name: str, value: Any) -> float | None:
    """A number above 0; None for None and for 0, which are the same in Cellpose."""
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise DataError(f"{name}: expected a number above 0 or None, found {value!r}")
    return number or None


def _check_rounds(rounds: int, diameter: float | None) -> None:
    """Refuse rounds that would be left out without a word."""
    if rounds < 0:
        raise DataError(f"diameter_rounds: expected 0 or more, found {rounds}")
    if rounds and diameter is not None:
        raise DataError(
            f"diameter_rounds: the diameter is given, {diameter:g} pixels, by you or by the thresholds that were "
            "calibrated for it, and stays as it is. Leave diameter_rounds out."
        )


def load_model(
    model: Path | str | Sequence[Path | str] | None = None,
    *,
    runs_dir: Path | str = "runs",
    ensembles_dir: Path | str = "ensembles",
    device: str = "auto",
    amp: str = "auto",
    engine: str = "auto",
    unfinished: bool = False,
    download: bool = True,
) -> Model:
    """Load all folds of a run, several runs, one checkpoint, or a model of Cellpose 3.

    Parameters
    ----------
    model : path or str, or a list of them, optional
        Run folder or name, archive, model file, or a model of Cellpose's such as ``"cyto3"``; several are averaged.
        Without it the newest run.
    runs_dir, ensembles_dir : path
        Where runs and calibrations of ensembles lie.
    device : str
        auto, cpu, cuda, cuda:1, mps.
    amp : {"auto", "bfloat16", "float16", "off"}
        Mixed precision.
    engine : {"auto", "torch", "openvino"}
        What runs the networks; auto takes OpenVINO on x86 CPUs where it is installed, else torch.
    unfinished : bool
        Also take folds whose training has not reached its last epoch, with their best model so far.
    download : bool
        Fetch the file of a model that is given by name, where Cellpose's model folder lacks it.

    Raises
    ------
    RunError, CheckpointError
        If no such model is there or can be fetched, or it is damaged. Folds that a run lacks are only warned of.

    Examples
    --------
    The run ``runs/exp``, or one of its models by itself:

    >>> from cellflow import load_model
    >>> load_model("exp", device="cpu")
    Model('exp', 2 members, cpu, diameter 21.1-21.8, thresholds: those of the training, not calibrated)
    >>> load_model("runs/exp/fold_0/best.pt", device="cpu")
    Model('exp_fold_0', 1 member, cpu, diameter 21.8, thresholds: those of the training, not calibrated)
    """
    runtime = RuntimeConfig(device=device, amp=amp, engine=engine)  # type: ignore[arg-type]
    check_config(runtime)
    machine = choose_machine(runtime)
    named = [model] if isinstance(model, (str, Path)) else list(model or ())
    opened = open_models(
        [str(item) for item in named], machine, runs_dir=Path(runs_dir),
        ensembles_dir=Path(ensembles_dir), unfinished=unfinished, download=download,
    )  # fmt: skip
    segmenter = Segmenter(
        opened.members, opened.thresholds.shared, policy=opened.policy, diameter=opened.diameter,
        per_type=opened.thresholds.per_type, average=opened.average,
    )  # fmt: skip
    return Model(opened, segmenter)

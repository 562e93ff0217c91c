"""The widget "Segment with a run": an image layer in, a labels layer out, in a thread."""

# No `from __future__ import annotations`: magicgui makes the fields of the annotations themselves.

from pathlib import Path
from typing import Annotated, Any

from magicgui import magicgui
from napari.layers import Image
from napari.qt.threading import FunctionWorker, thread_worker
from napari.types import LayerDataTuple
from qtpy.QtCore import QTimer

from cellflow.errors import CellflowError
from cellflow.napari.segment import segment

__all__ = ["segment_widget"]

_MODEL = {
    "label": "run or model",
    "tooltip": "Run by name or folder, archive (.zip), model file, or a model of Cellpose's such as cyto3; "
    "empty: the newest run",
}
_DIAMETER = {"min": 0.0, "max": 10000.0, "tooltip": "Pixels; 0: what the model says"}
_OWN = {
    "label": "thresholds of the model",
    "tooltip": "Those that were calibrated, else those of the training",
}
_LOGIT = {"min": -100.0, "max": 100.0, "step": 0.25}
_ERROR = {"min": 0.0, "max": 100.0, "step": 0.1, "tooltip": "0: no check of the flow"}
_SIZE = {"min": 0, "max": 1_000_000, "tooltip": "Pixels"}
_PLACE = ("scale", "translate")


def segment_widget() -> Any:
    """The widget, as napari asks for it."""
    return magicgui(
        _segment,
        call_button="Segment",
        persist=False,
        runs_dir={"mode": "d", "label": "folder of runs"},
    )


def _segment(
    image: Image,
    model: Annotated[str, _MODEL] = "",
    runs_dir: Path = Path("runs"),
    nuclei: Image | None = None,
    diameter: Annotated[float, _DIAMETER] = 0.0,
    own_thresholds: Annotated[bool, _OWN] = True,
    cellprob_threshold: Annotated[float, _LOGIT] = 0.0,
    flow_threshold: Annotated[float, _ERROR] = 0.4,
    min_size: Annotated[int, _SIZE] = 15,
    cellprob_layer: bool = False,
) -> FunctionWorker[list[LayerDataTuple]]:
    """Segment a layer; napari adds what the worker returns."""
    if image is None:
        raise ValueError("Open an image first: there is no image layer to segment.")
    thresholds = dict(
        cellprob_threshold=cellprob_threshold, flow_threshold=flow_threshold, min_size=min_size
    )
    axes = _data(image).ndim - bool(image.rgb)  # without that of colours
    places = {key: getattr(image, key)[-axes:] for key in _PLACE}
    job = {
        "model": model.strip(),
        "runs_dir": str(runs_dir),
        "nuclei": None if nuclei is None else _data(nuclei),
        "rgb": image.rgb,
        "name": image.name,
        "diameter": diameter,
        "thresholds": None if own_thresholds else thresholds,
        "flows": cellprob_layer,
        "placed": places,
    }
    worker = _run(_data(image), job)
    # Only when this has returned has napari asked to be told of the result. The lambda keeps the worker
    # alive until then, which its method would not.
    QTimer.singleShot(0, lambda: worker.start())
    return worker


def _data(image: Image) -> Any:
    """Pixels of a layer; of a pyramid the first level, which is the whole image."""
    return image.data[0] if image.multiscale else image.data


@thread_worker  # type: ignore[untyped-decorator,unused-ignore]
def _run(data: Any, job: dict[str, Any]) -> list[LayerDataTuple]:
    import numpy as np

    try:
        return [LayerDataTuple(item) for item in segment(np.asarray(data), **job)]
    except CellflowError as error:
        # As a sentence: napari shows the type and a traceback of anything else.
        from napari.utils.notifications import show_error

        show_error(str(error))
        return []

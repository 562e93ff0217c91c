"""Model files for Cellpose 3: one of every fold, under a name that its GUI can list."""

from __future__ import annotations

import logging
from pathlib import Path

from cellflow.engine.model_exports.job import ModelExportJob
from cellflow.errors import CheckpointError
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import UNet

__all__ = ["export_cellpose"]

_log = logging.getLogger(__name__)

_USAGE = """In Python, with Cellpose 3 (Cellpose 4 has another network and refuses the file):

```python
from cellpose.models import CellposeModel
model = CellposeModel(gpu=True, pretrained_model="{file}")
masks, flows, styles = model.eval(
    image, channels=[{chan}, {chan2}], cellprob_threshold={cellprob_threshold:g}, flow_threshold={flow_threshold:g},
    min_size={min_size},
)
```

Give the whole path: where there is no such file, Cellpose takes cyto3 instead. Without a diameter `eval`
uses that of the model, {diameter:.1f} pixels. On the command line: `python -m cellpose --dir FOLDER
--pretrained_model {file} --diameter 0 --chan {chan} --chan2 {chan2}`.

In the GUI: *Models > Add custom torch model to GUI*, choose the file (or `python -m cellpose --add_model {file}`),
then pick it under *custom models*; the diameter is set to the model's.

One fold is one network; the average of all folds, thresholds per cell type and other diameter policies are
cellflow's (`cellflow export --to archive`)."""


def export_cellpose(job: ModelExportJob, folder: Path) -> list[Path]:
    """Write a model file of each fold into a folder, and a page that says how to use them."""
    if job.opened.diameter is None and job.opened.policy != "dataset":
        _log.warning(
            "this run chooses diameters by the %s; Cellpose uses the mean of the training images unless one is "
            "given", job.opened.policy,
        )  # fmt: skip
    files = []
    for fold, member in job.members.items():
        model = job.run.fold(fold).best
        net, facts = load_model_file(model)
        if not isinstance(net, UNet):
            raise CheckpointError(
                f"{model}: Cellpose has no network {net.title!r}, only its own U-Net. Choose another "
                "form: --to archive or --to onnx.",
                path=model, expected=UNet.title, found=net.title,
            )  # fmt: skip
        net.set_diam_labels(job.opened.diameter or member.diam_labels)
        files.append(folder / f"{job.run.name}_fold_{fold}")
        save_model_file(files[-1], net, facts)
    first = next(iter(job.members.values()))
    mask = job.opened.thresholds.shared
    usage = _USAGE.format(
        file=files[0].name, chan=first.chan, chan2=first.chan2,
        cellprob_threshold=mask.cellprob_threshold, flow_threshold=mask.flow_threshold,
        min_size=mask.min_size, diameter=job.opened.diameter or first.diam_labels,
    )  # fmt: skip
    return [*files, job.write_card(folder, usage)]

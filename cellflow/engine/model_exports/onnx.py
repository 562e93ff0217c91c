"""ONNX files: one of every fold, and one that averages them where it is asked for."""

from __future__ import annotations

import logging
from pathlib import Path

from cellflow.engine.model_exports.job import ModelExportJob
from cellflow.nn.onnx_file import check_onnx, save_onnx
from cellflow.numeric.dynamics import FLOW_SCALE

__all__ = ["export_onnx", "onnx_facts"]

MERGED = "merged.onnx"

_log = logging.getLogger(__name__)

_USAGE = """`{file}` takes `image`, (batch, {channels}, height, width) float32: the channel to segment, and the nuclear
channel (0 where there is none), each normalised so that its percentiles 1 and 99 are 0 and 1, rescaled by
{diam_mean:g} / diameter, and padded with zeros to sides that are multiples of {multiple}. It gives
`output`, (batch, 3, height, width): the flow along Y, the flow along X (5 times the unit flow) and the logit of
the cell probability. Masks are made of them by `cellflow.flows_to_labels`, without torch; docs/models.md
has the whole script. The numbers are in the file's metadata too."""


def export_onnx(job: ModelExportJob, folder: Path) -> list[Path]:
    """Write the files, and a page that says what goes in and what comes out."""
    check_onnx()
    files = []
    for fold, member in job.members.items():
        files.append(folder / f"{job.run.name}_fold_{fold}.onnx")
        save_onnx(files[-1], [member.net], onnx_facts(job, fold))
    if job.config.merged:
        files.append(folder / MERGED)
        save_onnx(files[-1], [item.net for item in job.members.values()], onnx_facts(job))
        _log.info(
            "%s averages networks that see an image at one scale; the folds by themselves choose theirs: "
            "give a diameter to get the same", MERGED,
        )  # fmt: skip
    net = next(iter(job.members.values())).net
    usage = _USAGE.format(
        file=files[0].name, channels=net.channels, diam_mean=net.diameters[0], multiple=net.multiple
    )
    return [*files, job.write_card(folder, usage)]


def onnx_facts(job: ModelExportJob, fold: int | None = None) -> dict[str, str]:
    """What a program must know to use a file: that of a fold, or of all that are averaged."""
    members = list(job.members.values()) if fold is None else [job.members[fold]]
    opened = job.averaged if fold is None else job.opened
    first, mask = members[0], opened.thresholds.shared
    sizes = [member.diam_labels for member in members]
    facts = {
        "name": job.run.name,
        "folds": " ".join(map(str, job.members if fold is None else [fold])),
        "chan": first.chan,
        "chan2": first.chan2,
        "diam_mean": first.diam_mean,
        "diameter": opened.diameter or sum(sizes) / len(sizes),
        "multiple": first.net.multiple,
        "flow_scale": FLOW_SCALE,
        "cellprob_threshold": mask.cellprob_threshold,
        "flow_threshold": mask.flow_threshold,
        "min_size": mask.min_size,
        "license": job.config.license,
        "author": ", ".join(job.config.author),
    }
    return {key: str(value) for key, value in facts.items()}

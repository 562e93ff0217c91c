"""Every reader of files that come from people or may have been damaged: a small valid file, and who reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import samples
import torch
import yaml
from samples import LABELS, SHAPE

from cellflow.config import MaskConfig, TrainConfig
from cellflow.config.layers import blank_config, with_settings
from cellflow.engine.experiments.experiment_file import read_experiments
from cellflow.engine.runs.contents import read_table
from cellflow.engine.runs.metadata import read_metadata
from cellflow.engine.runs.state import cv_rows
from cellflow.engine.runs.thresholds import Thresholds, read_thresholds, write_thresholds
from cellflow.engine.segmentation.recognition import Recognition
from cellflow.engine.segmentation.styles import read_style_models, write_style_models
from cellflow.engine.slides.plan import SlidePlan, read_plan
from cellflow.engine.validation.oof_flows import OOF_COLUMNS
from cellflow.errors import CellflowError
from cellflow.io.audit_list import (
    AuditRow,
    Decision,
    read_audit_list,
    read_decisions,
    row_check,
    write_audit_list,
    write_decisions,
)
from cellflow.io.channel_names import read_channel_names
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import read_fold_facts, read_fold_table, write_fold_table
from cellflow.io.foreign_flows import read_foreign_flows
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.base import Use
from cellflow.io.formats.geojson import read_geojson, read_regions
from cellflow.io.formats.imagej_rois import read_rois
from cellflow.io.formats.seg_npy import read_seg_npy
from cellflow.io.formats.submission import read_submission
from cellflow.io.images import image_shape, read_image, read_labels, read_masks
from cellflow.io.large import open_large_image
from cellflow.io.model_archive import unpacked_archive, write_archive
from cellflow.io.pixel_size import read_pixel_size
from cellflow.io.roi import read_roi
from cellflow.io.source import FileImage
from cellflow.nn.checkpoint import load_model_file, load_state, save_model_file, save_state
from cellflow.nn.networks import UNet
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.normalize import Scaling
from cellflow.numeric.rle import rles_from_labels
from cellflow.storage.config_file import read_config_file, write_config_file
from cellflow.storage.hashing import hash_array
from cellflow.storage.run_folder import RunFolder
from cellflow.style_models import StyleModels
from cellflow.style_models.cell_type import CellTypeModel
from cellflow.style_models.diameter import DiameterModel
from cellflow.tracking.journal import read_journal
from cellflow.types import Box

__all__ = ["READERS", "Reader", "WrongError", "check"]

Make = Callable[[Path], Path]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """What is read, and by whom.

    Attributes
    ----------
    make : callable
        Writes a valid file, or a folder, into a folder; gives what is to be read.
    reads : tuple of callable
        Public functions that read it, of which the first reads the valid file; each gets every damaged copy.
    parts : str
        Which files of a folder are damaged, as a pattern.
    quiet : bool
        Whether what cannot be read is None or empty on purpose.
    """

    make: Make
    reads: tuple[Read, ...]
    parts: str = "**/*"
    quiet: bool = False

    def files(self, place: Path) -> list[Path]:
        """Files that are damaged, one at a time."""
        if place.is_file():
            return [place]
        return sorted(path for path in place.glob(self.parts) if path.is_file())


class WrongError(Exception):
    """A reader did what none may do."""


def check(reader: Reader, place: Path) -> bool:
    """Whether the first of the functions reads it; `WrongError` where one neither reads nor says in our words why."""
    whole = True
    for at, read in enumerate(reader.reads):
        try:
            read(place)
        except CellflowError as error:
            whole = whole and at > 0
            text = str(error)
            if str(place) not in text:
                raise WrongError(f"does not name the file: {text:.300}") from error
            if len(text) > 3000:
                raise WrongError(f"says {len(text)} characters: {text:.300}") from error
        except Exception as error:
            raise WrongError(f"{type(error).__name__}: {error!s:.300}") from error
    return whole


def _boxes(path: Path) -> None:
    """The first and the last corner, as blocks of a slide are read: whole images have another limit."""
    with open_large_image(path) as image:
        height, width = image.shape[:2]
        image.read(Box(0, min(height, 256), 0, min(width, 256)))
        image.read(Box(max(0, height - 256), height, max(0, width - 256), width))


def _same_shape(path: Path) -> None:
    """Header and pixels agree where both are read."""
    found = image_shape(path), read_image(path).shape
    assert found[0] == found[1], found


IMAGE = (_same_shape, read_masks, read_pixel_size, read_channel_names, _boxes)


def _cells(use: Use, path: Path, *, images: bool = True, **options: Any) -> None:
    """All pixels and cells of a source, as `prepare` and `score` ask for them."""
    given = ReadOptions(use, **options)
    source = read_source(path, given)
    given.problems.raise_if_any()
    for image in source.images.values():
        image.instances(image.pixels().shape[:2] if images else SHAPE)


def _prepared(path: Path, **options: Any) -> None:
    """The same of the folder that a file lies in; the message is that of the file."""
    _cells("prepare", path if path.is_dir() else path.parent, **options)


def _results(path: Path) -> None:
    truth = path.parent / "truth" / "annotations.json"
    _cells("prediction", path, images=False, truth=truth)


def _truth(path: Path) -> None:
    _cells("truth", path, images=False)


def _predicted(path: Path) -> None:
    _cells("prediction", path, images=False)


def _dataset(path: Path) -> None:
    dataset = Dataset.open(path)
    assert dataset.hash
    dataset.folds()
    read_fold_facts(path / "folds.csv")
    read_decisions(path)
    for image_id in dataset.ids:
        dataset.image(image_id), dataset.labels(image_id), dataset.instances(image_id)
        dataset.pixel_size(image_id), dataset.channel_names(image_id)


def _flows(path: Path) -> None:
    store = FlowStore(path)
    assert len(store) < 3
    for name in ("a", "b"):
        store.read(name), store.number(name, "diameter"), store.facts(name)


def _archive(path: Path) -> None:
    with unpacked_archive(path) as folder:
        assert all(item.is_relative_to(folder) for item in folder.rglob("*"))


def _settings(path: Path) -> None:
    source = f"--config {path}"
    with_settings(blank_config(TrainConfig), read_config_file(path, "train"), source)


def _dataset_folder(folder: Path) -> Path:
    place = folder / "data"
    place.mkdir()
    writer = DatasetWriter(place)
    for name in ("a", "b"):
        path = samples.IMAGES["PNG, grey"](folder)
        pixels = read_image(path) + np.uint16(name == "b")
        columns = {"cell_type": "x", "group": name}
        image = FileImage(name, path, columns)
        writer.add(image, pixels, instances_from_labels(LABELS), pixel_hash=hash_array(pixels))
    writer.finish("folder")
    dataset = Dataset.open(place)
    folds = dataset.images["n_instances"].copy()
    folds[:] = [0, 1]
    write_fold_table(place / "folds.csv", folds, {"group": "group", "split": "kfold", "k": 2})
    rles = tuple(rles_from_labels(LABELS))
    write_decisions(place / "audited.csv", [Decision("a", "outline", "fix", rles[:1], rles[1:2])])
    return place


def _fold_table(folder: Path) -> Path:
    path = folder / "folds.csv"
    path.write_text(
        "id,fold\n" + "".join(f"{name},{at % 3 - 1}\n" for at, name in enumerate("abcdef"))
    )
    return path


def _audit_list(folder: Path) -> Path:
    rles = rles_from_labels(LABELS)
    check_ = row_check("a", rles[:1], rles[1:2])
    row = AuditRow("a", (1,), "outline", (rles[1],), check_, "hash", "fix", 0.5, "a reason", 1, "x")
    write_audit_list(folder / "audit.csv", [row, row])
    return folder / "audit.csv"


def _flow_store(folder: Path) -> Path:
    store = FlowStore(folder / "flows.zarr", mode="w")
    for name in ("a", "b"):
        store.write(name, *samples.fields(), diameter=30.0, model_hash="x")
    return folder / "flows.zarr"


def _model(folder: Path, *, old: bool = False) -> Path:
    """A U-Net of few feature maps; the files of the real one are large, and of the same kind."""
    path, net = folder / "best.pt", UNet(widths=(1, 1, 1, 1))
    save_model_file(path, net, {"epoch": 3, "score": 0.5, "fold": 0, "chan": [0, 0]})
    if old:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


def _state(folder: Path) -> Path:
    layers = {f"layer.{at}.weight": torch.arange(60.0).reshape(3, 20) for at in range(4)}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1}]}
    progress = {"history": [{"epoch": 1, "loss": 0.5}], "best": -1.0, "evaluations": []}
    save_state(folder / "last.pt", {"net": layers, "optimizer": optimizer, "progress": progress})
    return folder / "last.pt"


def _archive_file(folder: Path) -> Path:
    files = {"fold_0/best.pt": _model(folder), "config.yaml": _record(folder) / "config.yaml"}
    write_archive(folder / "tiny.zip", files, {"name": "tiny", "folds": [0]})
    return folder / "tiny.zip"


def _record(folder: Path) -> Path:
    run = RunFolder(folder / "run")
    run.path.mkdir(exist_ok=True)
    config = {
        "model": {"chan": 0},
        "optim": {"n_epochs": 3},
        "sampling": {},
        "mask": {"min_size": 15},
    }
    names = {"data": "data", "data_hash": "x", "folds_hash": "y"}
    run.write_record({**names, "folds": [0, 1], "config": config, "lengthened": []})
    return run.path


def _settings_file(folder: Path) -> Path:
    write_config_file(folder / "train.yaml", "train", TrainConfig())
    return folder / "train.yaml"


def _experiments(folder: Path) -> Path:
    content = {
        "defaults": {"data": "data", "n_epochs": 5},
        "grid": {"learning_rate": [0.1, 0.2]},
        "experiments": [{"name": "a", "seed": 1}, {"name": "b", "grid": {"bsize": [224, 256]}}],
    }
    path = folder / "queue.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _thresholds(folder: Path) -> Path:
    masks = {"x": MaskConfig(cellprob_threshold=-1.0)}
    write_thresholds(folder / "thresholds.json", Thresholds(MaskConfig(), masks, "so", ("hash",)))
    return folder / "thresholds.json"


def _styles(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    types = CellTypeModel(("a", "b"), rng.normal(size=(2, 8)), rng.normal(size=2))
    sizes = DiameterModel(rng.normal(size=8), 3.0, 5.0, 60.0)
    write_style_models(folder / "styles.json", StyleModels(types, sizes, {"a": 20.0}, "hash"))
    return folder / "styles.json"


def _metadata(folder: Path) -> Path:
    facts = {"format": "cellflow-metadata", "version": 1, "data": {"hash": "x"}, "created": "2026"}
    (folder / "metadata.json").write_text(json.dumps(facts))
    (folder / "cv.csv").write_text(
        "scope,name,images,best_epoch\noverall,all,3,0.5\nfold,0,2,0.4\n"
    )
    events = [{"event": "epoch", "fold": 0, "epoch": at, "loss": 0.5} for at in range(3)]
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    return folder


def _plan(folder: Path) -> Path:
    place = Path("a.tif"), 0, (900, 800), 256, (0, 0), 1.0, (Scaling(), None), False
    rest = 30.0, MaskConfig(), 200, None, "", 0.0, "hash"
    plan = SlidePlan("a", *place, Recognition("x", {"x": 1.0}, 30.0), "x", *rest)
    (folder / "plan.json").write_text(json.dumps(plan.to_json()))
    return folder / "plan.json"


def _scores(folder: Path) -> Path:
    columns = {name: [0, 1] for name in OOF_COLUMNS} | {"id": ["a", "b"], "cell_type": ["x", ""]}
    rows = [
        ",".join(columns),
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")
    return folder / "scores.csv"


def _quiet_records(path: Path) -> None:
    run = RunFolder(path)
    read_metadata(run), cv_rows(run)
    read_journal(run.journal)


READERS: dict[str, Reader] = {
    **{name: Reader(make, IMAGE) for name, make in samples.IMAGES.items()},
    **{
        f"TIFF, {name}": Reader(partial(samples.tiff, "a.tif", *kind), IMAGE)
        for name, kind in samples.TIFFS.items()
    },
    **{
        f"OME-Zarr {version}, metadata": Reader(
            partial(samples.zarr, version), (*IMAGE, _prepared), parts
        )
        for version, parts in samples.ZARR_METADATA.items()
    },
    "OME-Zarr 0.5, chunks": Reader(partial(samples.zarr, "0.5"), (*IMAGE, _prepared), "**/c/**/*"),
    "OME-Zarr 0.5, shards": Reader(
        partial(samples.zarr, "0.5", **samples.SHARDS), (*IMAGE, _prepared), "**/c/**/*"
    ),
    "OME-Zarr 0.4, chunks": Reader(
        partial(samples.zarr, "0.4"), (*IMAGE, _prepared), "**/[0-9]*/[0-9]*"
    ),
    "label map, TIFF": Reader(partial(samples.labels, "a.tif"), (read_labels, read_pixel_size)),
    "label map, PNG": Reader(
        samples.palette, (read_labels, read_masks, partial(read_masks, colours=True))
    ),
    "train.csv": Reader(partial(samples.kaggle, "train.csv"), (_prepared, _truth)),
    "train.csv.gz": Reader(partial(samples.kaggle, "train.csv.gz"), (_prepared, _truth)),
    "submission.csv": Reader(samples.submission, (read_submission, _predicted)),
    "COCO annotations": Reader(samples.coco, (partial(_cells, "prepare"), _truth)),
    "COCO results": Reader(samples.coco_results, (_results,)),
    "GeoJSON": Reader(
        samples.geojson, (read_geojson, read_regions, partial(read_roi, shape=SHAPE), _prepared)
    ),
    **{
        f"ImageJ ROI, {kind}": Reader(partial(samples.roi, kind), (read_rois, _prepared))
        for kind in ("traced", "composite", "oval", "spline")
    },
    "ImageJ ROIs, zip": Reader(samples.rois, (read_rois, _prepared)),
    "NAME_seg.npy": Reader(samples.seg, (read_seg_npy, partial(_prepared, mask_filter="_seg"))),
    "ID.npz, plain": Reader(partial(samples.npz, np.savez), (read_foreign_flows,)),
    "ID.npz, packed": Reader(partial(samples.npz, np.savez_compressed), (read_foreign_flows,)),
    "dataset.json": Reader(_dataset_folder, (_dataset,), "dataset.json"),
    "images.csv": Reader(_dataset_folder, (_dataset,), "images.csv"),
    "instances.csv": Reader(_dataset_folder, (_dataset,), "instances.csv"),
    "folds.csv, folds.json": Reader(_dataset_folder, (_dataset,), "folds.*"),
    "folds.csv of people": Reader(_fold_table, (read_fold_table,)),
    "audited.csv": Reader(_dataset_folder, (_dataset,), "audited.csv"),
    "audit.csv": Reader(_audit_list, (read_audit_list,)),
    "flows.zarr": Reader(_flow_store, (_flows,)),
    "best.pt": Reader(_model, (load_model_file,)),
    "model file, old format": Reader(partial(_model, old=True), (load_model_file,)),
    "last.pt": Reader(_state, (load_state,)),
    "archive of a run": Reader(_archive_file, (_archive,)),
    "config.yaml": Reader(_record, (lambda path: RunFolder(path).read_record(),)),
    "settings, YAML": Reader(_settings_file, (_settings,)),
    "experiments, YAML": Reader(_experiments, (read_experiments,)),
    "thresholds.json": Reader(_thresholds, (read_thresholds,)),
    "styles.json": Reader(_styles, (read_style_models,)),
    "scores.csv": Reader(_scores, (lambda path: read_table(path, OOF_COLUMNS),)),
    "plan.json of a slide": Reader(_plan, (read_plan,)),
    "metadata.json, cv.csv, events.jsonl": Reader(_metadata, (_quiet_records,), quiet=True),
}

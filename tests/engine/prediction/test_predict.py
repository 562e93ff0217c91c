from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import NARROW, NarrowUNet
from oracle import Oracle
from skimage.io import imsave

import cellflow
from cellflow.config import (
    EnsembleConfig,
    InferenceConfig,
    MaskConfig,
    OofConfig,
    OutputConfig,
    PredictConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.prediction.ensemble import ensemble, predict
from cellflow.engine.prediction.prediction_plan import plan_prediction
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.segmenter import FLIPS, Segmenter
from cellflow.engine.validation.oof import oof
from cellflow.errors import CheckpointError, DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.foreign_flows import read_foreign_flows
from cellflow.io.images import read_image, read_labels
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.forward import image_to_flows
from cellflow.nn.runners import TorchRunner
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.normalize import normalize_percentile, select_channels
from cellflow.storage.run_folder import RunFolder
from cellflow.style_models import CellTypeModel, DiameterModel, StyleModels
from cellflow.synthetic import synthetic_dataset

cellpose_models = Oracle("models")

CPU = RuntimeConfig(device="cpu", amp="off")
LOOSE = MaskConfig(cellprob_threshold=-2.0, flow_threshold=0.0)
IMAGE = next(iter(synthetic_dataset(1, shape=(70, 90), seed=2, per_group=1))).image


def always(cell_type: str, diameter: float, sizes: dict[str, float] | None = None) -> StyleModels:
    """Style models that say the same of every image."""
    classes = tuple(sorted({"astro", "cort"}))
    bias = np.array([9.0 if name == cell_type else 0.0 for name in classes])
    return StyleModels(
        CellTypeModel(classes, np.zeros((2, NARROW[-1])), bias),
        DiameterModel(np.zeros(NARROW[-1]), float(np.log(diameter)), 1.0, 1000.0),
        sizes or {"astro": 12.0, "cort": 24.0},
        "",
    )


def member(seed: int, styles: StyleModels | None = None, only_type: str = "") -> Member:
    net = NarrowUNet.build(diam_mean=17.0, seed=seed).eval()
    return Member(
        f"net {seed}", TorchRunner(net), 0, 0, 17.0, 17.0, f"{seed}", {}, styles, only_type
    )


def flows_of(one: Member, diameter: float, scale: float = 1.0):
    normal = normalize_percentile(select_channels(IMAGE, 0, 0))
    found = image_to_flows(one.runner, normal, rescale=17.0 / diameter * scale)
    return found.flow, found.cellprob


def test_thresholds_of_the_type_that_the_style_tells() -> None:
    tight = MaskConfig(cellprob_threshold=0.0, flow_threshold=0.0, min_size=40)
    one = member(0, always("cort", 17.0))
    segmenter = Segmenter([one], LOOSE, per_type={"cort": tight, "astro": LOOSE})
    result = segmenter.predict(IMAGE)
    assert result.cell_type == result.recognition.cell_type == "cort"
    assert result.recognition.probabilities["cort"] > 0.99
    expected = make_labels(*flows_of(one, 17.0), 17.0, tight)
    np.testing.assert_array_equal(result.labels, expected)
    given = replace(segmenter, cell_type="astro").predict(IMAGE)
    assert given.cell_type == "astro"
    np.testing.assert_array_equal(given.labels, make_labels(*flows_of(one, 17.0), 17.0, LOOSE))


def test_an_unsure_type_takes_the_shared_thresholds() -> None:
    """Two members that contradict each other."""
    pair = [member(0, always("cort", 17.0)), member(1, always("astro", 17.0))]
    result = Segmenter(pair, LOOSE, per_type={"cort": MaskConfig(min_size=40)}).predict(IMAGE)
    assert result.cell_type == ""
    assert result.recognition.probabilities == pytest.approx({"astro": 0.5, "cort": 0.5}, abs=0.01)
    means = average_flows(flows_of(one, 17.0) for one in pair)
    np.testing.assert_array_equal(result.labels, make_labels(means[0], means[1], 17.0, LOOSE))


@pytest.mark.parametrize(
    ("policy", "expected"), [("dataset", 17.0), ("type", 24.0), ("image", 30.0)]
)
def test_diameter_policies(policy, expected: float) -> None:
    one = member(0, always("cort", 30.0))
    result = Segmenter([one], LOOSE, policy=policy).predict(IMAGE)
    assert result.diameter == pytest.approx(expected)
    flow, cellprob = flows_of(one, result.diameter)
    np.testing.assert_array_equal(result.flow, flow)
    np.testing.assert_array_equal(result.cellprob, cellprob)
    given = Segmenter([one], LOOSE, policy=policy, diameter=20.0).predict(IMAGE)
    assert given.diameter == 20.0


@pytest.mark.parametrize(("factor", "expected"), [(None, 24.0), (1.2, 30.0), (1.3, 24.0)])
def test_an_estimate_far_from_the_told_types_diameter_counts(factor, expected: float) -> None:
    """Type and style disagree by a factor of 1.25; a type that people gave is believed."""
    one = member(0, replace(always("cort", 30.0), type_factor=factor))
    other = member(1, replace(always("cort", 30.0), type_factor=1.01))
    segmenter = Segmenter([one, other], LOOSE, policy="type")
    assert Segmenter([one], LOOSE, policy="type").predict(IMAGE).diameter == pytest.approx(expected)
    result = segmenter.predict(IMAGE)
    assert result.diameter == pytest.approx(24.0 if factor == 1.3 else 30.0)
    assert result.cell_type == "cort"
    assert replace(segmenter, cell_type="astro").predict(IMAGE).diameter == 12.0
    unsure = [one, member(2, replace(always("astro", 30.0), type_factor=factor))]
    result = Segmenter(unsure, LOOSE, policy="type").predict(IMAGE)
    assert (result.cell_type, result.diameter) == ("", pytest.approx(30.0))


def test_members_average_their_log_diameters() -> None:
    pair = [member(0, always("cort", 10.0)), member(1, always("cort", 40.0))]
    result = Segmenter(pair, LOOSE, policy="image").predict(IMAGE)
    assert result.diameter == pytest.approx(20.0)


def test_without_style_models_every_policy_is_that_of_the_data_set() -> None:
    one = member(0)
    for policy in ("dataset", "type", "image"):
        result = Segmenter([one], LOOSE, policy=policy).predict(IMAGE)
        assert (result.diameter, result.cell_type) == (17.0, "")


def test_flips_and_scales_are_averaged_with_the_right_signs() -> None:
    one = member(0)
    result = Segmenter([one], LOOSE, flips=FLIPS, scales=(1.0, 1.5)).predict(IMAGE)
    normal = normalize_percentile(select_channels(IMAGE, 0, 0))
    views = []
    for scale in (1.0, 1.5):
        for up, left in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
            seen = np.ascontiguousarray(normal[:, ::up, ::left])
            found = image_to_flows(one.runner, seen, rescale=scale)
            flow = found.flow[:, ::up, ::left] * np.array([up, left], np.float32)[:, None, None]
            views.append((flow.copy(), found.cellprob[::up, ::left].copy()))
    np.testing.assert_allclose(result.flow, np.mean([v[0] for v in views], axis=0), atol=1e-4)
    np.testing.assert_allclose(result.cellprob, np.mean([v[1] for v in views], axis=0), atol=1e-4)
    assert result.disagreement.max() > 0


def test_weights_foreign_flows_and_variants() -> None:
    pair = [member(0), member(1)]
    foreign = flows_of(member(2), 17.0)
    asked = []

    def source(key, reference):
        assert np.allclose(reference[0], flows_of(pair[0], 17.0)[0], atol=1e-5)
        asked.append(key)
        return foreign

    segmenter = Segmenter(
        pair, LOOSE, weights=(1.0, 2.0, 3.0), average="direction", foreign=[source]
    )
    result = segmenter.predict(IMAGE, "an id")
    assert asked == ["an id"]
    parts = [flows_of(one, 17.0) for one in pair] + [foreign]
    flow, cellprob, _ = average_flows(parts, (1.0, 2.0, 3.0), variant="direction")
    np.testing.assert_allclose(result.flow, flow, atol=1e-5)
    np.testing.assert_allclose(result.cellprob, cellprob, atol=1e-5)
    with pytest.raises(RunError, match="expected one for each of 3 members, found 2"):
        Segmenter(pair, LOOSE, weights=(1.0, 2.0), foreign=[source])


def test_members_for_one_cell_type() -> None:
    general = member(0, always("cort", 17.0))
    special = member(1, only_type="cort")
    other = member(2, only_type="astro")
    result = Segmenter([general, special, other], LOOSE).predict(IMAGE)
    flow, _, _ = average_flows(flows_of(one, 17.0) for one in (general, special))
    np.testing.assert_array_equal(result.flow, flow)
    given = Segmenter([general, special, other], LOOSE, cell_type="astro").predict(IMAGE)
    flow, _, _ = average_flows(flows_of(one, 17.0) for one in (general, other))
    np.testing.assert_array_equal(given.flow, flow)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1), np.uint8),
        np.full((1, 1), 200, np.uint8),
        np.full((40, 50), 7, np.uint16),
        np.full((33, 1), 3, np.uint8),
        np.full((64, 64, 3), 9, np.uint8),
        np.full((64, 64, 3), (200, 0, 90), np.uint8),
    ],
)
def test_images_that_show_nothing_have_no_cells_at_the_defaults(image) -> None:
    result = Segmenter([member(0)], MaskConfig()).predict(image)
    assert result.labels.shape == image.shape[:2]
    assert len(result.cells) == result.labels.max()


def test_an_image_without_pixels() -> None:
    with pytest.raises(DataError, match="at least one pixel"):
        Segmenter([member(0)], MaskConfig()).predict(np.zeros((0, 5), np.uint8))


@pytest.mark.slow
def test_flows_with_augment_equal_cellpose(shared: Path) -> None:
    path = shared / "models" / "usiigaci_unet"
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:300, :411]
    theirs = cellpose_models.CellposeModel(gpu=False, pretrained_model=str(path), mkldnn=False)
    _, (_, flow, cellprob), _ = theirs.eval(
        image, channels=[0, 0], compute_masks=False, augment=True
    )
    one = load_member(path, "usiigaci", Machine(torch.device("cpu")))
    ours = Segmenter([one], MaskConfig(), augment=True).predict(image)
    np.testing.assert_allclose(ours.flow, flow, atol=1e-4)
    np.testing.assert_allclose(ours.cellprob, cellprob, atol=1e-4)


@pytest.mark.slow
def test_eval_is_called_and_answered_as_cellpose(shared: Path) -> None:
    path = shared / "models" / "usiigaci_unet"
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:300, :411]
    theirs = cellpose_models.CellposeModel(gpu=False, pretrained_model=str(path), mkldnn=False)
    masks, (_, flow, cellprob), style = theirs.eval(image, channels=[0, 0], diameter=40.0)
    model = cellflow.load_model(path, device="cpu", amp="off")
    found, flows, styles = model.eval(image, channels=[0, 0], diameter=40.0)
    np.testing.assert_allclose(flows[1], flow, atol=1e-4)
    np.testing.assert_allclose(flows[2], cellprob, atol=1e-4)
    assert styles.shape == style.shape
    assert cellflow.average_precision(masks.astype(int), found, [0.75]).mean > 0.9
    several = model.eval([image, image])
    np.testing.assert_array_equal(several[0][0], several[0][1])
    colour = np.stack([image * 0, image, image * 0], axis=-1)
    green, _, _ = model.eval(colour, channels=[2, 0], diameter=40.0)
    np.testing.assert_array_equal(green, found)  # a file of Cellpose does not say its channels


def test_load_model(trained: TrainConfig, tmp_path: Path) -> None:
    dataset = Dataset.open(trained.data)
    image = dataset.image(dataset.ids[0])
    model = cellflow.load_model("tiny", runs_dir=trained.runs_dir, device="cpu", amp="off")
    assert len(model.opened.members) == 2
    result = model.predict(image, cellprob_threshold=-2.0, flow_threshold=0.0)
    assert len(result.cells) == result.labels.max()
    assert list(result.cells["label"]) == list(range(1, result.labels.max() + 1))
    flipped = model.predict(image, tta=True)
    assert not np.array_equal(flipped.flow, result.flow)
    one = cellflow.load_model(
        RunFolder(trained.runs_dir / "tiny").fold(0).best, device="cpu", amp="off"
    )
    assert len(one.opened.members) == 1
    with pytest.raises(DataError, match=r"was trained on \[0, 0\], found \[2, 1\]"):
        one.eval(image, channels=[2, 1])
    with pytest.raises(CheckpointError, match="No model file"):
        cellflow.load_model(tmp_path / "nowhere.pt")
    with pytest.raises(RunError, match=r"No run 'nope'.*tiny"):
        cellflow.load_model("nope", runs_dir=trained.runs_dir)


@pytest.fixture
def folder(trained: TrainConfig, tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    dataset = Dataset.open(trained.data)
    for name in dataset.ids[:2]:
        imsave(images / f"{name}.png", dataset.image(name), check_contrast=False)
    return images


def config_of(trained: TrainConfig, folder: Path, **more) -> PredictConfig:
    return PredictConfig(
        images=folder,
        model="tiny",
        runs_dir=trained.runs_dir,
        ensembles_dir=folder.parent / "ensembles",
        output=OutputConfig(
            out=folder.parent / "predictions",
            export=("masks", "cells", "submission", "outlines"),
        ),
        runtime=CPU,
        **more,
    )


def test_a_changed_image_is_predicted_again(trained: TrainConfig, folder: Path) -> None:
    config = config_of(trained, folder)
    first = predict(config)
    paths = sorted(folder.glob("*.png"))
    kept, changed = (first.masks / f"{path.stem}.tif" for path in paths)
    before = kept.stat().st_mtime_ns
    imsave(paths[1], np.zeros((31, 44), np.uint8), check_contrast=False)
    again = predict(config)
    assert read_labels(changed).shape == (31, 44)
    assert kept.stat().st_mtime_ns == before
    assert again.cells[paths[1].stem] == 0
    assert paths[1].stem not in set(pd.read_csv(again.table)["id"])


def test_another_folder_under_the_same_name_is_refused(trained: TrainConfig, folder: Path) -> None:
    predict(config_of(trained, folder))
    other = folder.parent / "other_images"
    folder.rename(other)
    with pytest.raises(DataError, match=r"images: .*images -> .*other_images(.|\n)*--name"):
        predict(replace(config_of(trained, folder), images=other))


def test_a_run_whose_path_has_an_at_sign(trained: TrainConfig, tmp_path: Path) -> None:
    place = tmp_path / "me@lab"
    shutil.copytree(trained.runs_dir, place / "runs")
    model = cellflow.load_model(place / "runs" / "tiny", device="cpu", amp="off")
    assert len(model.opened.members) == 2


def test_predict_equals_the_ensemble(trained: TrainConfig, folder: Path) -> None:
    result = predict(config_of(trained, folder))
    assert sorted(path.name for path in result.folder.iterdir() if path.name[0] != ".") == [
        "cells.csv", "ensemble.yaml", "masks", "outlines", "prediction.json", "submission.csv",
    ]  # fmt: skip
    other = ensemble(
        EnsembleConfig(
            images=folder,
            runs=("tiny",),
            runs_dir=trained.runs_dir,
            output=OutputConfig(out=folder.parent / "other"),
            runtime=CPU,
        )
    )
    for name in result.cells:
        np.testing.assert_array_equal(
            read_labels(result.masks / f"{name}.tif"), read_labels(other.masks / f"{name}.tif")
        )


def test_a_dry_run_writes_nothing(trained: TrainConfig, folder: Path) -> None:
    plan = plan_prediction(config_of(trained, folder, inference=InferenceConfig(tta=True)))
    assert (plan.images, plan.done, plan.members, plan.views) == (2, 0, 2, 4)
    assert plan.seconds == pytest.approx(2 * plan.seconds_per_image) and plan.seconds > 0
    assert not plan.folder.exists()


def test_a_dry_run_where_only_damaged_images_are_left(trained: TrainConfig, folder: Path) -> None:
    config = config_of(trained, folder)
    predict(config)
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    plan = plan_prediction(config)
    assert (plan.images, plan.done) == (3, 2)
    assert plan.seconds > 0
    anew = replace(config, output=replace(config.output, overwrite=True))
    assert plan_prediction(anew).done == 0  # all of it would be made again
    with pytest.raises(DataError, match="none of 1 images can be used"):
        plan_prediction(replace(config, images=folder / "cut.png"))


def test_foreign_flows_join(trained: TrainConfig, folder: Path) -> None:
    flows = folder.parent / "flows"
    flows.mkdir()
    for path in folder.glob("*.png"):
        shape = read_image(path).shape[:2]
        unit = np.zeros((2, *shape))
        np.savez(flows / f"{path.stem}.npz", flow=unit, cellprob=np.full(shape, -50.0), scale=1.0)
    config = EnsembleConfig(
        images=folder,
        runs=("tiny",),
        runs_dir=trained.runs_dir,
        flows=(flows,),
        output=OutputConfig(out=folder.parent / "joined"),
        runtime=CPU,
    )
    assert not sum(ensemble(config).cells.values())  # it is sure that there is nothing
    next(flows.iterdir()).unlink()
    result = ensemble(replace(config, output=OutputConfig(out=folder.parent / "again")))
    assert len(result.failed) == len(result.cells) == 1
    with pytest.raises(DataError, match="expected a folder"):
        ensemble(replace(config, flows=(folder.parent / "none",)))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"flow": np.zeros((2, 3, 4)), "cellprob": np.zeros((3, 4))}, "not found: scale"),
        (
            {"flow": np.zeros((3, 4)), "cellprob": np.zeros((3, 4)), "scale": 5.0},
            r"expected flow \(2, H, W\)",
        ),
        (
            {"flow": np.zeros((2, 3, 4)), "cellprob": np.zeros((3, 4)), "scale": 0.0},
            "one positive scale",
        ),
    ],
)
def test_foreign_flows_that_do_not_fit(tmp_path: Path, arrays, says: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=says):
        read_foreign_flows(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "c.npz", flow=np.random.default_rng(0).normal(size=(2, 60, 60)))
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[300:340] = b"x" * 40
    (tmp_path / "c.npz").write_bytes(data)
    np.save(tmp_path / "d.npy", np.zeros(3))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", flow=np.zeros((2, 3, 4)), cellprob=np.zeros((3, 4)), scale="x")
    for name in "cde":
        with pytest.raises(DataError, match=rf"{name}\.npz"):
            read_foreign_flows(tmp_path / f"{name}.npz")
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"b\.npz"):
        read_foreign_flows(tmp_path / "b.npz")


def test_foreign_flows_are_brought_to_scale(tmp_path: Path) -> None:
    flow = np.ones((2, 3, 4))
    np.savez(tmp_path / "a.npz", flow=flow, cellprob=np.zeros((3, 4)), scale=1)
    assert (read_foreign_flows(tmp_path / "a.npz")[0] == cellflow.FLOW_SCALE).all()


def test_weights_by_cross_validation(
    trained: TrainConfig, folder: Path, shared: Path, tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(trained.runs_dir / "tiny", tmp_path / "runs" / "tiny"))
    scores = [0.2, 0.6]  # trained for three epochs, it has none
    for fold, score in enumerate(scores):
        net, facts = load_model_file(run.fold(fold).best)
        save_model_file(run.fold(fold).best, net, facts | {"score": score})
    config = EnsembleConfig(
        images=folder,
        runs=("tiny",),
        runs_dir=tmp_path / "runs",
        weights="cv",
        output=OutputConfig(out=folder.parent / "weighted"),
        runtime=CPU,
    )
    record = json.loads((ensemble(config).folder / "prediction.json").read_text())
    assert record["identity"]["weights"] == pytest.approx(scores)
    foreign = replace(config, runs=("tiny", str(shared / "models" / "usiigaci_unet")))
    with pytest.raises(RunError, match=r"cross-validation score .*; \S+usiigaci_unet has none"):
        ensemble(foreign)


def test_an_unknown_cell_type(copied: TrainConfig, folder: Path) -> None:
    oof(OofConfig(run="tiny", runs_dir=copied.runs_dir, policy="dataset", runtime=CPU))
    with pytest.raises(DataError, match=r"--cell_type nope: expected one of .*round"):
        predict(config_of(copied, folder, inference=InferenceConfig(cell_type="nope")))


def test_the_cell_table_of_a_model_file(shared: Path, tmp_path: Path) -> None:
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:300, :411]
    imsave(tmp_path / "a.png", image, check_contrast=False)
    result = predict(
        PredictConfig(
            images=tmp_path / "a.png",
            model=str(shared / "models" / "usiigaci_unet"),
            output=OutputConfig(out=tmp_path / "out", name="one"),
            inference=InferenceConfig(tta=True),
            runtime=CPU,
        )
    )
    assert result.cells["a"] > 5
    table, labels = pd.read_csv(result.table), read_labels(result.masks / "a.tif")
    np.testing.assert_array_equal(table["area"], np.bincount(labels.ravel())[1:])
    for number in (1, labels.max()):
        row, inside = table.iloc[number - 1], labels == number
        assert row["mean_intensity"] == pytest.approx(image[inside].mean(), rel=1e-5)
        assert row["centroid_y"] == pytest.approx(np.nonzero(inside)[0].mean())
    assert table["confidence"].between(0, 1).all()
    assert (table["disagreement"] > 0).all()

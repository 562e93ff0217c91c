from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_equal
from numpy.typing import NDArray

from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.styles import (
    fit_style_models,
    image_style,
    read_style_models,
    write_style_models,
)
from cellflow.errors import CheckpointError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_image
from cellflow.nn.forward import image_to_flows
from cellflow.nn.networks import UNet
from cellflow.nn.precision import choose_layout, set_layout
from cellflow.nn.runners import TorchRunner
from cellflow.numeric.normalize import normalize_percentile, select_channels
from cellflow.style_models import CellTypeModel, DiameterModel, StyleModels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def member() -> Member:
    """New weights, with batch-norm statistics of something seen."""
    net = UNet.build(seed=2, diam_mean=17.0)
    set_layout(net, choose_layout(CPU))
    with torch.no_grad():
        net.train()(torch.rand(2, 2, 64, 64, generator=torch.Generator().manual_seed(0)))
    return Member(
        "tiny", TorchRunner(net.eval()), 0, 0, diam_mean=17.0, diam_labels=25.5, hash="cafe"
    )


@pytest.fixture
def dataset(tiny_data: Path) -> Dataset:
    """Opened anew, so that a test may change its table."""
    return Dataset.open(tiny_data)


def styles_of(member: Member, dataset: Dataset, names: list[str]) -> NDArray[np.float32]:
    return np.stack([image_style(member, dataset.image(name)) for name in names])


def test_the_style_is_that_of_a_prediction(member: Member, dataset: Dataset) -> None:
    """Same normalisation and scale as when the network segments the image at its default diameter."""
    image = dataset.image(dataset.ids[0])
    normal = normalize_percentile(select_channels(image))
    flows = image_to_flows(member.runner, normal, rescale=17.0 / 25.5)
    np.testing.assert_array_equal(image_style(member, image), flows.style)
    brighter = image.astype(np.uint16) * 200 + 31
    np.testing.assert_allclose(image_style(member, brighter), flows.style, atol=1e-5)
    coarser = replace(member, diam_labels=50.0)
    assert np.abs(image_style(coarser, image) - flows.style).max() > 1e-3


def test_the_members_channels_are_used(member: Member) -> None:
    image = np.random.default_rng(0).integers(0, 255, size=(40, 48, 3)).astype(np.uint8)
    green = replace(member, chan=2)
    np.testing.assert_array_equal(image_style(green, image), image_style(member, image[:, :, 1]))
    both = replace(member, chan=2, chan2=3)
    assert np.abs(image_style(both, image) - image_style(green, image)).max() > 1e-4
    with pytest.raises(DataError, match="chan: expected 0 to 3"):
        image_style(replace(member, chan=4), image)


def test_models_are_fitted_on_the_named_images(member: Member, dataset: Dataset) -> None:
    names = dataset.ids[::-1][:5]  # an order of its own
    models = fit_style_models(member, dataset, names)
    styles = styles_of(member, dataset, names)
    rows = dataset.images.loc[names]
    types, diameters = rows["cell_type"].tolist(), rows["median_diameter"].to_numpy()
    assert models.cell_type is not None
    assert_equal(asdict(models.cell_type), asdict(CellTypeModel.fit(styles, types)))
    assert_equal(asdict(models.diameter), asdict(DiameterModel.fit(styles, diameters)))
    assert models.type_diameters == pytest.approx(
        rows.groupby("cell_type")["median_diameter"].mean().to_dict()
    )
    assert models.model_hash == "cafe"


def test_the_spread_of_estimates_comes_from_images_held_out(
    member: Member, dataset: Dataset
) -> None:
    names, held_out = dataset.ids[:3], dataset.ids[3:]
    models = fit_style_models(member, dataset, names, held_out=held_out)
    assert replace(models, type_factor=None).to_dict() == (
        fit_style_models(member, dataset, names).to_dict()
    )
    styles = styles_of(member, dataset, held_out)
    estimates = models.diameter.diameters(styles)
    ratios = [1.0]
    for name, votes, estimate in zip(
        held_out, models.cell_type.probabilities(styles), estimates, strict=True
    ):
        true = dataset.images.loc[name, "cell_type"]
        if votes.max() >= 0.6 and models.cell_type.classes[votes.argmax()] == true:
            size = models.type_diameters[true]
            ratios += [estimate / size, size / estimate]
    assert len(ratios) > 1
    assert models.type_factor == pytest.approx(max(ratios))
    assert StyleModels.from_dict(models.to_dict()).type_factor == models.type_factor
    old = {key: value for key, value in models.to_dict().items() if key != "type_factor"}
    assert StyleModels.from_dict(old).type_factor is None


def test_images_without_cells_or_type_say_what_they_can(member: Member, dataset: Dataset) -> None:
    names = dataset.ids
    types, diameters = dataset.images["cell_type"], dataset.images["median_diameter"]
    untyped, empty = names[0], names[1]
    types.loc[untyped], diameters.loc[empty] = "", 0.0
    dataset.images = dataset.images.assign(cell_type=types, median_diameter=diameters)
    models = fit_style_models(member, dataset, names)
    styles = dict(zip(names, styles_of(member, dataset, names), strict=True))
    typed = [name for name in names if name != untyped]
    with_cells = [name for name in names if name != empty]
    expected = CellTypeModel.fit(
        np.stack([styles[name] for name in typed]), [types[name] for name in typed]
    )
    assert models.cell_type is not None
    assert_equal(asdict(models.cell_type), asdict(expected))
    diameter = DiameterModel.fit(
        np.stack([styles[name] for name in with_cells]), [diameters[name] for name in with_cells]
    )
    assert_equal(asdict(models.diameter), asdict(diameter))
    both = [name for name in typed if name != empty]
    assert models.type_diameters == {
        kind: pytest.approx(np.mean([diameters[name] for name in both if types[name] == kind]))
        for kind in {types[name] for name in both}
    }


def test_data_without_types(member: Member, dataset: Dataset) -> None:
    dataset.images = dataset.images.drop(columns="cell_type")
    models = fit_style_models(member, dataset, dataset.ids[:2])
    assert models.cell_type is None
    assert models.type_diameters == {}
    dataset.images = dataset.images.assign(cell_type="")
    assert fit_style_models(member, dataset, dataset.ids[:2]).cell_type is None


def test_images_that_teach_nothing_are_refused(member: Member, dataset: Dataset) -> None:
    with pytest.raises(DataError, match="at least one of 0 training images"):
        fit_style_models(member, dataset, [])
    with pytest.raises(DataError, match="no image with the id 'nope' among its 6 images"):
        fit_style_models(member, dataset, [dataset.ids[0], "nope"])
    dataset.images = dataset.images.assign(median_diameter=0.0)
    with pytest.raises(DataError, match="at least one of 2 training images"):
        fit_style_models(member, dataset, dataset.ids[:2])


def make_models() -> StyleModels:
    styles = np.random.default_rng(0).normal(size=(6, 5))
    return StyleModels(
        CellTypeModel.fit(styles, ["a", "b"] * 3),
        DiameterModel.fit(styles, [20, 21, 24, 26, 30, 31]),
        {"a": 24.7, "b": 26.0},
        "cafe",
    )


def test_file_and_back(tmp_path: Path) -> None:
    models = make_models()
    write_style_models(tmp_path / "fold_0" / "styles.json", models)
    assert [path.name for path in (tmp_path / "fold_0").iterdir()] == ["styles.json"]
    assert read_style_models(tmp_path / "fold_0" / "styles.json").to_dict() == models.to_dict()


@pytest.mark.parametrize("damage", ["cut", "empty", "bytes", "list", "entry", "nan"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "styles.json"
    write_style_models(path, make_models())
    whole, value = path.read_bytes(), json.loads(path.read_text())
    changed: dict[str, Any] = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "bytes": b"\xff\xfe\x00" + whole,
        "list": b"[1, 2]",
        "entry": json.dumps(value | {"diameter": {}}).encode(),
        "nan": whole.replace(b'"bias": ', b'"bias": NaN, "old": '),
    }
    assert changed[damage] != whole
    path.write_bytes(changed[damage])
    with pytest.raises(CheckpointError, match=r"styles\.json: .*repeat the command"):
        read_style_models(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.json cannot be read \(No such file"):
        read_style_models(tmp_path / "nowhere.json")


def test_real_styles_tell_real_cell_types(shared: Path) -> None:
    """Leaving one image out each time, on crops; images of one source are not on both sides."""
    layout = shared / "data" / "kaggle_layout"
    with (layout / "train.csv").open(encoding="utf-8", newline="") as file:
        types = {row["id"]: row["cell_type"] for row in csv.DictReader(file)}
    chosen = [
        name
        for kind, count in (("fluo", 6), ("histology", 6), ("t98g", 4))
        for name in [n for n in sorted(types) if types[n] == kind and not n.endswith("_1")][:count]
    ]
    member = load_member(shared / "models" / "usiigaci_unet", "usiigaci", Machine(CPU))
    crops = (read_image(layout / "train" / f"{name}.png")[:160, :160] for name in chosen)
    styles = np.stack([image_style(member, crop) for crop in crops])
    right = []
    for place, name in enumerate(chosen):
        rest = np.arange(len(chosen)) != place
        model = CellTypeModel.fit(styles[rest], [types[chosen[i]] for i in np.flatnonzero(rest)])
        found = model.probabilities(styles[place : place + 1])[0]
        right.append(model.classes[int(found.argmax())] == types[name])
    assert len(right) == 16
    assert sum(right) >= 14  # always the commonest type would be right 6 times

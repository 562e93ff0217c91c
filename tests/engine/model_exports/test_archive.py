"""A run as one file: made of a run, used where neither the run nor its data is."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imread

import cellflow
from cellflow.cli import main
from cellflow.config import (
    EnsembleConfig,
    FoldsConfig,
    MaskConfig,
    ModelExportConfig,
    OofConfig,
    OutputConfig,
    PredictConfig,
    RuntimeConfig,
)
from cellflow.config import TrainConfig as Train
from cellflow.engine.model_exports.job import open_job
from cellflow.engine.model_exports.onnx import onnx_facts
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.errors import CheckpointError, DataError, FoldError, RunError
from cellflow.io import model_archive
from cellflow.io.model_archive import unpacked_archive
from cellflow.nn.checkpoint import load_model_file
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder, ensemble_record

LOOSE = ["--cellprob_threshold", "-9", "--flow_threshold", "0", "--min_size", "0",
         "--max_size_fraction", "1"]  # fmt: skip
"""Thresholds with which an untrained network has cells too."""


@pytest.fixture(scope="module")
def archive_once(predicted_once: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "shipped.zip"
    export(predicted_once, path)
    return path


@pytest.fixture
def archive(archive_once: Path, tmp_path: Path) -> Path:
    """An archive, free to be broken."""
    (tmp_path / "out").mkdir()
    return Path(shutil.copy(archive_once, tmp_path / "out"))


def export(config: Train, path: Path, **settings: Any) -> Any:
    return cellflow.export_model(
        ModelExportConfig(
            run=config.name, to="archive", out=path, runs_dir=config.runs_dir, **settings
        )
    )


def command(*words: object) -> None:
    """As typed."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    assert stop.value.code == 0


def predict(images: Path, out: Path, *words: object) -> Path:
    told = ["--out", out, "--name", "x", "--device", "cpu", "--amp", "off"]
    command("predict", images, *told, *words)
    return out / "x"


@pytest.mark.slow
def test_an_archive_predicts_as_its_run(
    predicted: Train,
    tiny_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From files to files, the same to the bit: after the run is gone, and without network."""
    monkeypatch.chdir(tmp_path)
    runs = ["--runs_dir", predicted.runs_dir]
    command("calibrate", predicted.name, *runs)
    command("export", predicted.name, "--to", "archive", *runs)
    images = tiny_source / "images"
    before = predict(images, tmp_path / "run", "--model", predicted.name, *runs, *LOOSE)
    shutil.move(predicted.runs_dir, tmp_path / "away")
    monkeypatch.setattr(socket, "socket", pytest.fail)
    after = predict(images, tmp_path / "zip", "--model", f"{predicted.name}.zip", *LOOSE)
    names = sorted(path.relative_to(before) for path in before.rglob("*.*") if path.is_file())
    assert len(names) > 8
    for name in names:
        if name.suffix in (".tif", ".csv", ".json"):
            assert (after / name).read_bytes() == (before / name).read_bytes(), name
    assert any(imread(path).max() > 0 for path in (after / "masks").iterdir())
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_real_cells(real_once: Train, photographs: Path, tmp_path: Path) -> None:
    """In Python and in an ensemble, with cells that are cells."""
    export(real_once, tmp_path / "real.zip")
    image = imread(photographs / "a.png")
    told = {"device": "cpu", "amp": "off"}
    ours = cellflow.load_model(real_once.runs_dir / real_once.name, **told).predict(image)
    theirs = cellflow.load_model(tmp_path / "real.zip", **told).predict(image)
    assert ours.labels.max() >= 3
    np.testing.assert_array_equal(theirs.labels, ours.labels)
    np.testing.assert_array_equal(theirs.flow, ours.flow)
    both = EnsembleConfig(
        runs=(
            str(tmp_path / "real.zip"),
            str(real_once.runs_dir / real_once.name / "fold_0" / "best.pt"),
        ),
        images=(photographs,),
        output=OutputConfig(out=tmp_path / "both"),
    )
    with pytest.raises(RunError, match="twice"):  # a member is known wherever it comes from
        cellflow.ensemble(both)


@pytest.mark.slow
def test_one_fold(real_once: Train, photographs: Path, tmp_path: Path) -> None:
    made = export(real_once, tmp_path / "one.zip", fold=(1,))
    assert made.folds == (1,)
    model = cellflow.load_model(tmp_path / "one.zip", device="cpu", amp="off")
    assert [member.name for member in model.opened.members] == [f"{real_once.name} fold 1"]
    alone = cellflow.load_model(
        RunFolder(real_once.runs_dir / real_once.name).fold(1).best, device="cpu", amp="off"
    )
    image = imread(photographs / "a.png")
    np.testing.assert_array_equal(model.predict(image).labels, alone.predict(image).labels)


@pytest.fixture
def told_apart(predicted: Train, tmp_path: Path) -> tuple[Path, Train]:
    """Thresholds of single models, others of both folds together, and others of fold 1 alone as an ensemble."""
    run = RunFolder(predicted.runs_dir / predicted.name)
    hashes = tuple(hash_file(run.fold(fold).best) for fold in (0, 1))
    write_thresholds(
        run.thresholds,
        Thresholds(MaskConfig(cellprob_threshold=0.5), source="single", members=hashes),
    )
    for folder, members, value in (("both", hashes, 1.5), ("one", hashes[1:], 2.5)):
        record = ensemble_record(tmp_path / folder, [run.name])
        record.parent.mkdir(parents=True)
        write_thresholds(
            record, Thresholds(MaskConfig(cellprob_threshold=value), source=folder, members=members)
        )
    return tmp_path, predicted


def test_thresholds_of_one_model_as_an_ensemble_travel(told_apart: tuple[Path, Train]) -> None:
    folder, config = told_apart
    path = folder / "one.zip"
    export(config, path, fold=(1,), ensembles_dir=folder / "one")
    model = cellflow.load_model(path, device="cpu", ensembles_dir=folder / "none")
    assert model.opened.thresholds.shared == MaskConfig(cellprob_threshold=2.5)


def test_files_of_one_network_have_thresholds_of_single_models(
    told_apart: tuple[Path, Train],
) -> None:
    """The average of both has its own; so has an archive of both, and not one of one of them."""
    folder, config = told_apart
    told = {"run": config.name, "runs_dir": config.runs_dir, "ensembles_dir": folder / "both"}
    for fold, to, single in (((), "onnx", True), ((1,), "archive", True), ((), "archive", False)):
        job = open_job(ModelExportConfig(**told, fold=fold, to=to, merged=to == "onnx"))
        assert job.opened.thresholds.shared == MaskConfig(cellprob_threshold=0.5 if single else 1.5)
        assert job.facts.mask == job.opened.thresholds.shared
        if to == "onnx":
            assert onnx_facts(job, 1)["cellprob_threshold"] == "0.5"
            assert onnx_facts(job)["cellprob_threshold"] == "1.5"


def test_nothing_private_is_in_it(archive: Path, predicted: Train) -> None:
    images = cellflow.io.dataset.Dataset.open(predicted.data).ids
    secrets = [str(predicted.data), str(archive.parent), *images]
    short = ["/tmp", socket.gethostname(), getpass.getuser()]  # in weights they may come by chance
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        texts = {name: file.read(name) for name in names}
        assert {item.date_time for item in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    for name, text in texts.items():
        words = secrets if name.endswith(".pt") else secrets + short
        assert not [word for word in words if word.encode() in text], name
    assert not {"environment.json", "folds.csv", "metadata.json", "tracking.json"} & set(names)


def test_what_it_says_of_itself(archive: Path, predicted: Train) -> None:
    run = RunFolder(predicted.runs_dir / predicted.name)
    with zipfile.ZipFile(archive) as file:
        manifest = json.loads(file.read("archive.json"))
        card = file.read("README.md").decode()
    record = run.read_record()
    assert (manifest["name"], manifest["folds"]) == (predicted.name, [0, 1])
    assert manifest["folds_hash"] == record["folds_hash"] and manifest["versions"]["torch"]
    assert "6 images, 6 groups" in card and "--chan 0: the mean of all" in card
    assert f'load_model("{archive.name}")' in card
    with zipfile.ZipFile(archive) as file:
        passed = json.loads(file.read("oof/oof.json"))
    own = json.loads(run.oof_record.read_text())
    assert own.pop("machine") and passed == own
    best = load_model_file(run.fold(0).best)
    assert f"{best.net.diameters[1]:.1f}" in card and "17 pixels" in card
    for heading in ("| last |", "| best |", "| fitted |", "| bias |", "| expected |"):
        assert heading in card
    assert record["folds_hash"] in card and str(predicted.data) not in card


@pytest.mark.slow
def test_a_holdout_says_what_was_predicted(trained: Train, tmp_path: Path) -> None:
    """The images of fold 1 trained the model, and nothing was predicted of them."""
    data = shutil.copytree(trained.data, tmp_path / "data")
    cellflow.make_folds(FoldsConfig(data=data, split="holdout", holdout=0.5, overwrite=True))
    config = replace(trained, data=data, name="one", runs_dir=tmp_path / "runs")
    cellflow.train(config)
    runtime = RuntimeConfig(device="cpu", amp="off")
    cellflow.oof(OofConfig("one", runs_dir=config.runs_dir, policy="dataset", runtime=runtime))
    export(config, tmp_path / "one.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as file:
        card = file.read("README.md").decode()
    cells = int(cellflow.io.dataset.Dataset.open(trained.data).images["n_instances"].sum())
    assert f"6 images, 6 groups, {cells} cells; each model without those of its fold" in card
    assert "3 of the 6 images were predicted, each by a model that never saw it" in card
    assert "Every training image" not in card


def test_the_same_run_gives_the_same_file(predicted: Train, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(predicted, tmp_path / name / "x.zip")
    assert (tmp_path / "a/x.zip").read_bytes() == (tmp_path / "b/x.zip").read_bytes()


def test_nothing_is_replaced_unasked(archive: Path, predicted: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--overwrite"):
        export(predicted, archive)
    archive.write_bytes(b"other")
    export(predicted, archive, overwrite=True)
    assert model_archive.is_archive(archive)
    with pytest.raises(DataError, match="found a folder"):
        (tmp_path / "folder.zip").mkdir()
        export(predicted, tmp_path / "folder.zip", overwrite=True)
    with pytest.raises(FoldError, match="those of --fold 0 1"):
        export(predicted, tmp_path / "y.zip", fold=(7,))


def test_a_run_without_a_fold_is_refused(predicted: Train, tmp_path: Path) -> None:
    run = RunFolder(predicted.runs_dir / predicted.name)
    run.fold(1).best.unlink()
    with pytest.raises(RunError, match="fold 1 has no model"):
        export(predicted, tmp_path / "x.zip")
    assert export(predicted, tmp_path / "x.zip", unfinished=True).folds == (0,)


def rewritten(archive: Path, change: Any) -> Path:
    """The archive with its members changed: ``change`` gets them by name."""
    with zipfile.ZipFile(archive) as file:
        members = {name: file.read(name) for name in file.namelist() if ".pt" not in name}
        members |= {"fold_0/best.pt": b"weights", "fold_1/best.pt": b"weights"}
    change(members)
    path = archive.with_name("hostile.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def told(**facts: Any) -> Any:
    """A change of what the archive says of itself."""

    def change(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["archive.json"]) | facts
        members["archive.json"] = json.dumps(manifest).encode()

    return change


def listed(name: str, content: bytes = b"x") -> Any:
    """Another member, which the list of files knows."""

    def change(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["archive.json"])
        manifest["files"][name] = {"size": len(content), "hash": ""}
        members |= {"archive.json": json.dumps(manifest).encode(), name: content}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (listed("../outside.txt"), "no name of a file"),
        (listed("/etc/outside.txt"), "no name of a file"),
        (listed("fold_0/../../outside.txt"), "no name of a file"),
        (listed("fold_0\\outside.txt"), "no name of a file"),
        (listed(".hidden"), "no name of a file"),
        (listed("C:/outside.txt"), "no name of a file"),
        (listed("README.MD"), "a name is there twice"),
        (listed("bomb.json", b"0" * 3_000_000), "would grow"),
        (lambda members: members.update({"more.txt": b"x"}), "other files than"),
        (lambda members: members.pop("cv.csv"), "other files than"),
        (lambda members: members.update({"archive.json": b"{"}), "archive.json"),
        (lambda members: members.update({"archive.json": b"[" * 100_000}), "archive.json"),
        (lambda members: members.update({"cv.csv": b"x"}), "not the file that was put in"),
        (told(name="../x"), "no name of a run"),
        (told(name=""), "no name of a run"),
        (told(name=5), "no name of a run"),
        (told(files=[]), "other files than"),
        (told(format="x"), "expected the format"),
        (told(note=" ".join(map(str, range(300_000)))), "larger than"),
        (told(version=2), "Update cellflow"),
        (lambda members: members.update({f"{n}.txt": b"" for n in range(1001)}), "at most 1000"),
    ],
)
def test_hostile_archives(archive: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = rewritten(archive, change)
    before = {item for item in tmp_path.rglob("*")}
    with pytest.raises(CheckpointError, match=message), unpacked_archive(path):
        pass
    assert {item for item in tmp_path.rglob("*")} == before
    with pytest.raises(CheckpointError, match=message):
        cellflow.load_model(path, device="cpu")


def test_a_cut_archive(archive: Path) -> None:
    """What is cut is no zip any more; a flipped byte inside is found by its sum."""
    content = archive.read_bytes()
    archive.write_bytes(content[:-50])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        cellflow.load_model(archive, device="cpu")
    place = len(content) // 2
    archive.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(CheckpointError, match=r"Bad CRC-32.*Fetch it again"):
        cellflow.load_model(archive, device="cpu")


def test_sizes_that_lie_are_bounded(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_archive, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="at most 1000 bytes"):
        cellflow.load_model(archive, device="cpu")


def test_a_command_that_wants_a_run_says_so(
    archive: Path, tiny_source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cellflow.predict(
        PredictConfig(
            (tiny_source / "images",),
            model=str(archive),
            output=OutputConfig(out=archive.parent, name="p", dry_run=True),
        )
    )
    with pytest.raises(CheckpointError, match=r"an archive of a run.*fold_0/best\.pt"):
        load_model_file(archive)
    with pytest.raises(SystemExit):
        main(["export", str(archive), "--to", "onnx"])
    assert "No run" in capsys.readouterr().err

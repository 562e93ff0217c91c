"""Whatever is wrong with a file, its reader says so in our words, soon and without much memory."""

from __future__ import annotations

import io
import json
import resource
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import damaged

from cellflow.engine.segmentation.styles import read_style_models, write_style_models
from cellflow.errors import CellflowError, CheckpointError, DataError, FoldError
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import read_fold_facts
from cellflow.io.foreign_flows import read_foreign_flows
from cellflow.nn.checkpoint import load_model_file, load_state, save_model_file, save_state
from cellflow.nn.networks import NETWORKS, Network, UNet
from cellflow.style_models import StyleModels
from cellflow.style_models.cell_type import CellTypeModel
from cellflow.style_models.diameter import DiameterModel

SECONDS, KILOBYTES = 5.0, 1_500_000


def survives(path: Path, cases: Any, read: Callable[[], Any], named: str | None = None) -> int:
    """Number of cases that were refused; each by our error, which names the file."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for data in cases:
        path.write_bytes(data)
        started = time.monotonic()
        try:
            read()
        except CellflowError as error:
            refused += 1
            assert (named or str(path)) in str(error)
            assert len(str(error)) < 2000
        assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
    return refused


STATE: dict[str, Any] = {
    "net": {f"layer.{n}.weight": torch.arange(60.0).reshape(3, 20) + n for n in range(4)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp": torch.ones(7)}}, "groups": [{"lr": 0.1}]},
    "progress": {"history": [{"epoch": 1, "loss": 0.5}], "best": -1.0, "evaluations": []},
}  # fmt: skip


@pytest.mark.parametrize("old_format", [False, True])
def test_training_states(tmp_path: Path, old_format: bool) -> None:
    path = tmp_path / "last.pt"
    save_state(path, STATE)
    if old_format:
        torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert load_state(path)["progress"] == STATE["progress"]
    cases = list(damaged(path.read_bytes(), 400, 1))
    refused = survives(path, cases, lambda: load_state(path))
    assert refused > (100 if old_format else 300)


def test_model_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network with few weights: the files of the real one are large, and of the same kind."""

    class Tiny(Network):
        kind = title = "tiny"
        file_keys = ("line.weight",)

        def __init__(self, diam_mean: float = 30.0):
            super().__init__(diam_mean)
            self.line, self.norm = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)

    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    tiny = Tiny()
    path = tmp_path / "best.pt"
    for old_format in (False, True):
        save_model_file(path, tiny, {"epoch": 3, "score": 0.5, "fold": 0})
        if old_format:
            torch.save(tiny.state_dict(), path, _use_new_zipfile_serialization=False)
        load_model_file(path)
        cases = list(damaged(path.read_bytes(), 400, 2))
        assert survives(path, cases, lambda: load_model_file(path)) > 100


def test_a_flipped_bit_in_a_weight_is_known(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save_model_file(path, UNet.build(), {})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"best\.pt cannot be read as a model file.*damaged"):
        load_model_file(path)


@pytest.mark.parametrize("old_format", [False, True])
def test_a_name_without_end_is_refused_at_once(tmp_path: Path, old_format: bool) -> None:
    """torch searches it for its message, in steps that grow with the square of its length."""
    whole = io.BytesIO()
    state = torch.nn.Linear(3, 4).state_dict()
    torch.save(state, whole, _use_new_zipfile_serialization=not old_format)
    path, name, long = tmp_path / "best.pt", b"OrderedDict\n", b"Ordered" * 20_000 + b"Dict\n"
    if old_format:
        path.write_bytes(whole.getvalue().replace(name, long))
    else:
        with zipfile.ZipFile(whole) as parts, zipfile.ZipFile(path, "w") as file:
            for part in parts.namelist():
                file.writestr(part, parts.read(part).replace(name, long))
    started = time.process_time()
    with pytest.raises(CheckpointError, match=r"best\.pt cannot be read as a model file"):
        load_model_file(path)
    assert time.process_time() - started < 2.0  # torch.load takes minutes


def test_model_files_of_odd_content(tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    for content in ({1: torch.zeros(1)}, {}, [torch.zeros(1)], torch.zeros(3), "text", 5, None):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"odd\.pt"):
            load_model_file(path)
    state: dict[str, Any] = dict(UNet.build().state_dict())
    torch.save(state | {("a", 1): torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"odd\.pt is no model file: \('a', 1\) is no name"):
        load_model_file(path)
    torch.save(state | {"output.2.bias": [0.0, 0.0, 0.0]}, path)
    with pytest.raises(CheckpointError, match=r"output\.2\.bias is no array of weights but list"):
        load_model_file(path)


def flows(shape: tuple[int, int] = (40, 50)) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    cellprob = rng.normal(size=shape).astype(np.float32)
    angle = rng.uniform(0, 6, shape)
    return np.stack([np.sin(angle), np.cos(angle)]).astype(np.float32) * 5, cellprob


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_foreign_flows(tmp_path: Path, save: Callable[..., None]) -> None:
    flow, cellprob = flows()
    buffer = io.BytesIO()
    save(buffer, flow=flow, cellprob=cellprob, scale=5.0)
    path = tmp_path / "a.npz"
    cases = list(damaged(buffer.getvalue(), 400, 3))
    assert survives(path, cases, lambda: read_foreign_flows(path)) > 200


def test_foreign_flows_with_damaged_headers(tmp_path: Path) -> None:
    """Inside a zip file whose sums are right."""
    flow, cellprob = flows()
    array = io.BytesIO()
    np.save(array, flow)
    path = tmp_path / "a.npz"

    def zipped() -> Any:
        for data in damaged(array.getvalue()[:400], 300, 4):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as file:
                for name, value in (("cellprob", cellprob), ("scale", np.array(5.0))):
                    with file.open(f"{name}.npy", "w") as stream:
                        np.save(stream, value)
                file.writestr("flow.npy", data + array.getvalue()[400:])
            yield buffer.getvalue()

    assert survives(path, zipped(), lambda: read_foreign_flows(path)) > 150


def test_flow_stores(tmp_path: Path) -> None:
    flow, cellprob = flows()
    folder = tmp_path / "flows.zarr"
    FlowStore(folder, mode="w").write("a", flow, cellprob, diameter=30.0, model_hash="x")
    kept = shutil.copytree(folder, tmp_path / "kept")
    files = [path.relative_to(kept) for path in kept.rglob("*") if path.is_file()]
    assert len(files) == 3

    def read() -> None:
        store = FlowStore(folder)
        assert ("a" in store and list(store) == ["a"]) or len(store) < 2
        store.read("a"), store.number("a", "diameter")

    for name in files:
        cases = damaged((kept / name).read_bytes(), 150, 5)
        assert survives(folder / name, cases, read, str(folder)) > 30
        shutil.copyfile(kept / name, folder / name)
    read()


def test_a_lost_or_flipped_chunk_is_known(tmp_path: Path) -> None:
    flow, cellprob = flows()
    folder = tmp_path / "flows.zarr"
    store = FlowStore(folder, mode="w")
    store.write("a", flow, cellprob)
    store.write("zeros", flow * 0, cellprob * 0)
    assert not store.read("zeros")[0].any()
    (chunk,) = (
        path for path in (folder / "a").rglob("*") if path.is_file() and path.suffix != ".json"
    )
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(DataError, match="damaged at image 'a'"):
        FlowStore(folder).read("a")
    chunk.unlink()
    with pytest.raises(DataError, match="damaged at image 'a'"):
        FlowStore(folder).read("a")


def test_style_models(tmp_path: Path) -> None:
    path = tmp_path / "styles.json"
    rng = np.random.default_rng(0)
    types = CellTypeModel(("a", "b"), rng.normal(size=(2, 8)), rng.normal(size=2))
    sizes = DiameterModel(rng.normal(size=8), 3.0, 5.0, 60.0)
    write_style_models(path, StyleModels(types, sizes, {"a": 20.0}, "hash"))
    read_style_models(path)
    cases = list(damaged(path.read_bytes(), 400, 6))
    cases += [b"[" * 100_000, b'{"schema": ' * 50_000, b"\xff\xfe", b"null", b"1e999", b""]
    assert survives(path, cases, lambda: read_style_models(path)) > 200


def test_fold_facts(tmp_path: Path) -> None:
    """What cannot be read is told with its file: without its column of groups, leaks would go unseen."""
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\na,0\nb,1\n")
    text = json.dumps({"group": "g", "hash": "x", "replaces": {"facts": {}, "hash": "y"}}).encode()
    for data in [*damaged(text, 300, 7), b"[" * 100_000, b'{"replaces": [1]}', b'{"replaces": {}}']:
        path.with_suffix(".json").write_bytes(data)
        try:
            assert isinstance(read_fold_facts(path), dict)
        except FoldError as error:
            assert str(error).startswith(str(path.with_suffix(".json")))

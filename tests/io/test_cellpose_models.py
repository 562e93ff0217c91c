from __future__ import annotations

import ast
import hashlib
import io
import json
import logging
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from model_server import ModelServer, serve

from cellflow.errors import CheckpointError, DownloadError
from cellflow.io import cellpose_models
from cellflow.io.cellpose_models import FOURFOLD, OFFERED, model_file, model_files

FILES = ("cyto3", "cytotorch_0", "nucleitorch_0", "livecell_cp3")


def weights(value: float, *, new: bool = True) -> bytes:
    """What torch writes: of today, and as it wrote before version 1.6."""
    buffer = io.BytesIO()
    torch.save(
        {"weight": torch.full((600, 100), value)}, buffer, _use_new_zipfile_serialization=new
    )
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serve(tmp_path, monkeypatch) as state:
        state.files = {name: weights(number) for number, name in enumerate(FILES)}
        yield state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_model_is_fetched_once(server: ModelServer, folder: Path) -> None:
    path = model_file("cyto3")
    assert path == folder / "cyto3"
    assert path.read_bytes() == server.files["cyto3"]
    assert left_in(folder) == ["cellflow.json", "cyto3"]
    found = json.loads((folder / "cellflow.json").read_text())["cyto3"]
    content = server.files["cyto3"]
    assert found == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert model_files("cyto3") == (path,)
    assert server.asked == ["cyto3"]


def test_names_are_those_of_cellpose() -> None:
    source = find_spec("cellpose")
    if source is None or source.origin is None:
        pytest.skip("Cellpose is the source of the names, and is not installed")
    text = Path(source.origin).with_name("models.py").read_text()
    if "cyto3" not in text:
        pytest.skip("Cellpose 3 is the source of the names; another version is installed")
    names = ast.literal_eval(
        re.findall(r"^MODEL_NAMES = (\[.+?\])", text, re.DOTALL | re.MULTILINE)[0]
    )
    refused = {"transformer_cp3", "neurips_cellpose_transformer"}
    assert {cellpose_models.MEANT.get(name, name) for name in names} - refused <= set(OFFERED)
    assert f'_MODEL_URL = "{cellpose_models.SERVER}"' in text
    assert cellpose_models.MEANT["nuclei"] == "nucleitorch_0"


@pytest.mark.parametrize(
    ("name", "file"), [("cyto", "cytotorch_0"), ("nuclei", "nucleitorch_0"), ("livecell", "livecell_cp3")]
)  # fmt: skip
def test_short_names_say_what_they_mean(
    server: ModelServer, folder: Path, name: str, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    cellpose_models._say_meant.cache_clear()
    with caplog.at_level(logging.INFO, logger="cellflow"):
        assert model_file(name) == folder / file
        assert model_file(name, fetch=False) == folder / file
    assert caplog.text.count(f"{name} means {file}") == 1
    assert server.asked == [file]


def test_where_nothing_may_be_fetched_it_says_what_to_put_where(
    server: ModelServer, folder: Path
) -> None:
    with pytest.raises(DownloadError) as error:
        model_file("nuclei", fetch=False)
    for part in (
        f"put that file into {folder} as n",
        f"{server.url}/nucleitorch_0",
        "path of a model",
    ):
        assert part in str(error.value)
    assert error.value.path == folder / "nucleitorch_0"
    assert not server.asked and not folder.exists()

    folder.mkdir()
    (folder / "nucleitorch_0").write_bytes(server.files["nucleitorch_0"])
    assert model_file("nuclei", fetch=False) == folder / "nucleitorch_0"


@pytest.mark.parametrize("sized", [True, False])
def test_a_truncated_file(server: ModelServer, folder: Path, sized: bool) -> None:
    server.cut, server.sized = 200_000, sized
    what = r"200000 of \d+ bytes came" if sized else "what came is no model file"
    with pytest.raises(DownloadError, match=what) as error:
        model_file("cyto3")
    assert "put that file into" in str(error.value)
    assert left_in(folder) == []
    server.cut = None
    assert model_file("cyto3").read_bytes() == server.files["cyto3"]


def foreign_zip() -> bytes:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "nothing of torch")
    return buffer.getvalue()


def flipped_bit() -> bytes:
    content = bytearray(weights(0.0))
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\n<!DOCTYPE html><html>Log in</html>", "a web page"),
        (b"", "something else"),
        (pickle.dumps({"weight": 1}), "something else"),
        (foreign_zip(), "something else"),
        (flipped_bit(), "something else"),
    ],
    ids=["page", "nothing", "pickle", "zip", "bit"],
)
def test_what_is_no_model_is_not_kept(
    server: ModelServer, folder: Path, content: bytes, what: str
) -> None:
    server.files["cyto3"] = content
    with pytest.raises(DownloadError, match=rf"/cyto3: what came is no model file but {what}"):
        model_file("cyto3")
    assert left_in(folder) == []


def test_a_file_of_an_old_torch(server: ModelServer) -> None:
    server.files["cyto3"] = weights(1.0, new=False)
    path = model_file("cyto3")
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.ones(600, 100))


@pytest.mark.parametrize("code", [404, 500, 503])
def test_a_server_without_the_file(server: ModelServer, folder: Path, code: int) -> None:
    server.missing = code
    with pytest.raises(
        DownloadError,
        match=rf"/TN1: the server answered {code} \(.+\)\. Try again later, or put that",
    ):
        model_file("TN1")
    assert left_in(folder) == []


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (closed_port, "Connection refused"),
        (lambda: "http://nowhere.invalid/models", r".+"),
        (lambda: "nonsense", "unknown url type"),
    ],
    ids=["refused", "no name", "no address"],
)
def test_no_network(
    server: ModelServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: Callable[[], str],
    what: str,
) -> None:
    monkeypatch.setenv("CELLFLOW_MODEL_SERVER", address())
    with pytest.raises(DownloadError, match=rf"/cyto3 cannot be reached: {what}") as error:
        model_file("cyto3")
    assert f"put that file into {folder} as cyto3" in str(error.value)
    assert left_in(folder) == []


def test_a_server_that_is_silent(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.go_on.clear()
    monkeypatch.setattr("cellflow.io.cellpose_models.TIMEOUT", 0.2)
    with pytest.raises(DownloadError, match="cannot be reached: timed out"):
        model_file("cyto3")
    server.go_on.set()


def test_a_server_that_falls_silent(
    server: ModelServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.pause = 100_000
    server.go_on.clear()
    monkeypatch.setattr("cellflow.io.cellpose_models.TIMEOUT", 0.2)
    with pytest.raises(DownloadError, match="/cyto3: the connection broke: timed out"):
        model_file("cyto3")
    server.go_on.set()
    assert left_in(folder) == []


def test_what_a_killed_process_left(server: ModelServer, folder: Path) -> None:
    server.pause = 100_000
    server.go_on.clear()
    code = "from cellflow.io.cellpose_models import model_file; model_file('cyto3')"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        until = time.monotonic() + 60
        while not any(name.endswith(".tmp") for name in left_in(folder)):
            assert time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    assert len(left_in(folder)) == 2  # the lock, which nobody holds, and what had come
    server.go_on.set()
    assert model_file("cyto3").read_bytes() == server.files["cyto3"]
    assert left_in(folder) == ["cellflow.json", "cyto3"]


def test_two_processes_at_once(server: ModelServer, folder: Path, tmp_path: Path) -> None:
    """One fetches, the other waits and uses the file."""
    server.go_on.clear()
    code = (
        "import logging, sys; logging.basicConfig(level=20, stream=sys.stdout)\n"
        "from cellflow.io.cellpose_models import model_file; print(model_file('cyto3'))"
    )
    logs = [tmp_path / "first.txt", tmp_path / "second.txt"]
    with ExitStack() as stack:
        files = [stack.enter_context(log.open("w")) for log in logs]
        stack.callback(server.go_on.set)
        command = [sys.executable, "-c", code]
        both = [subprocess.Popen(command, stdout=file) for file in files]
        until = time.monotonic() + 60
        while not any("waiting for it" in log.read_text() for log in logs):
            assert time.monotonic() < until
            time.sleep(0.05)
        server.go_on.set()
        assert [process.wait(60) for process in both] == [0, 0]
    assert all(log.read_text().splitlines()[-1] == str(folder / "cyto3") for log in logs)
    assert server.asked == ["cyto3"]
    assert left_in(folder) == ["cellflow.json", "cyto3"]


def test_another_file_than_the_one_first_seen(server: ModelServer, folder: Path) -> None:
    path = model_file("cyto3")
    path.write_bytes(weights(7.0))
    with pytest.raises(CheckpointError, match=r"not the file that was first seen there.*Remove it"):
        model_file("cyto3")
    path.unlink()
    server.files["cyto3"] = weights(8.0)
    with pytest.raises(DownloadError, match=r"what came \(.*not the file that was first seen"):
        model_file("cyto3")
    assert left_in(folder) == ["cellflow.json"]
    (folder / "cellflow.json").write_text("{ damaged")
    assert model_file("cyto3").read_bytes() == weights(8.0)


def test_a_file_that_cellpose_fetched_is_recorded(server: ModelServer, folder: Path) -> None:
    folder.mkdir()
    (folder / "cyto3").write_bytes(weights(5.0))
    (folder / "mine").write_bytes(weights(6.0))
    assert model_file("cyto3") == folder / "cyto3"
    assert model_file("mine") == folder / "mine"
    assert list(json.loads((folder / "cellflow.json").read_text())) == ["cyto3"]
    assert not server.asked


def test_a_damaged_file_is_not_recorded(server: ModelServer, folder: Path) -> None:
    """Else the whole one could not take its place."""
    folder.mkdir()
    (folder / "cyto3").write_bytes(weights(5.0)[:1000])
    assert model_file("cyto3") == folder / "cyto3"  # what it is, loading it says
    (folder / "cyto3").unlink()
    assert model_file("cyto3").read_bytes() == server.files["cyto3"]


def test_a_folder_that_cannot_be_written(
    server: ModelServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=r"cannot be written .*CELLPOSE_LOCAL_MODELS_PATH"):
        model_file("cyto3")


def test_a_shared_folder_where_nothing_can_be_recorded(server: ModelServer, folder: Path) -> None:
    """A folder stands in for a lock that nobody can make: administrators write into read-only folders."""
    (folder / cellpose_models.LOCK).mkdir(parents=True)
    (folder / "cyto3").write_bytes(server.files["cyto3"])
    assert model_file("cyto3") == folder / "cyto3"
    assert left_in(folder) == [cellpose_models.LOCK, "cyto3"]
    with pytest.raises(DownloadError, match=r"cannot be written .*CELLPOSE_LOCAL_MODELS_PATH"):
        model_file("nuclei")


@pytest.mark.parametrize("name", ["cyto33", "Cyto3", "nucleus", "runs/x/best.pt", ""])
def test_nothing_is_fetched_for_an_unknown_name(server: ModelServer, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"No model file '{name}': looked for") as error:
        model_file(name)
    assert not isinstance(error.value, DownloadError)
    assert not server.asked
    assert ("Did you mean cyto3" in str(error.value)) == (name.lower().startswith("cyto3"))


def test_names_of_ones_own_are_near_too(server: ModelServer, folder: Path) -> None:
    folder.mkdir()
    (folder / "my_neurons").write_bytes(weights(1.0))
    (folder / "my_neuron_size.npy").touch()
    with pytest.raises(CheckpointError, match=r"Did you mean my_neurons\?"):
        model_file("my_neuron")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cpsam", "Cellpose 4"),
        ("transformer_cp3", "a transformer"),
        ("denoise_cyto3", "restores images"),
        ("size_cyto3.npy", "cellflow oof"),
        ("bact_phase_omnitorch_0", "Omnipose"),
    ],
)
def test_models_of_other_kinds_are_refused_by_name(
    server: ModelServer, name: str, what: str
) -> None:
    with pytest.raises(CheckpointError, match=rf"^{re.escape(name)} is .*{what}"):
        model_files(name)
    assert not server.asked


def test_four_networks(server: ModelServer, folder: Path, tmp_path: Path) -> None:
    server.files |= {f"cytotorch_{number}": weights(number) for number in range(4)}
    names = [f"cytotorch_{number}" for number in range(4)]
    with pytest.raises(CheckpointError, match="a training starts from one: give cytotorch_0"):
        model_file("cytotorch")
    assert not server.asked
    assert model_files("cytotorch") == tuple(folder / name for name in names)
    assert server.asked == names
    assert set(FOURFOLD) == {"cytotorch", "cyto2torch", "nucleitorch"}

    for number in range(3):
        (tmp_path / f"own_{number}").write_bytes(weights(number))
    with pytest.raises(
        CheckpointError, match="Of four networks only own_0, own_1, own_2 are there"
    ):
        model_files("own")
    (tmp_path / "own_3").write_bytes(weights(3))
    assert model_files("own") == tuple(Path(f"own_{number}") for number in range(4))
    with pytest.raises(CheckpointError, match="a training starts from one: give own_0"):
        model_file("own")
    (tmp_path / "own").write_bytes(weights(4))
    assert model_files("own") == (Path("own"),)


def test_paths_come_first(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / "cyto3").write_bytes(weights(9.0))
    assert model_file("cyto3") == Path("cyto3")
    assert model_file(str(tmp_path / "cyto3")) == tmp_path / "cyto3"
    assert not server.asked


def test_progress_is_shown(server: ModelServer) -> None:
    shown: list[tuple[str, int, int]] = []

    @contextmanager
    def show(title: str, size: int) -> Iterator[Callable[[int], None]]:
        yield lambda came: shown.append((title, size, came))

    model_file("cyto3", show_progress=show)
    size = len(server.files["cyto3"])
    assert shown[-1] == ("fetching cyto3", size, size)
    assert [came for _, _, came in shown] == sorted({came for _, _, came in shown})


@pytest.mark.parametrize("name", ["~nobody-of-this-name/m", "a" * 300, "~"])
def test_texts_that_are_no_paths(name: str, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="No model file"):
        model_files(name)

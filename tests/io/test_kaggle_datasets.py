from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellflow.errors import CellflowError
from cellflow.io.kaggle_datasets import Existing, KaggleDatasets, user_without_client

pytest.importorskip("kaggle", reason="needs the extra: pip install cellflow[kaggle]")


def _fake_module() -> Any:
    """`fake_kaggle.py` beside this file; tests are no package."""
    if "fake_kaggle" not in sys.modules:
        path = Path(__file__).with_name("fake_kaggle.py")
        spec = importlib.util.spec_from_file_location("fake_kaggle", path)
        assert spec is not None and spec.loader is not None
        sys.modules["fake_kaggle"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["fake_kaggle"])
    return sys.modules["fake_kaggle"]


fake_kaggle = _fake_module()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    with fake_kaggle.FakeKaggle() as server:
        server.point_client(monkeypatch, tmp_path / "home")
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    for name in ("a.txt", "deep/er/b.bin", "deep/c.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def test_a_dataset_and_its_second_version_arrive_with_their_folders(
    server: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle = KaggleDatasets()
    assert kaggle.user == "ada"
    assert kaggle.find("ada/exp-0-3124") is None
    url = kaggle.create(folder, "ada/exp-0-3124", title="exp_0.3124", public=False)
    assert url == "https://www.kaggle.com/datasets/ada/exp-0-3124"
    made = server.datasets["ada/exp-0-3124"]
    assert (made.title, made.private) == ("exp_0.3124", True)
    expected = {name: name.encode() for name in ("a.txt", "deep/er/b.bin", "deep/c.txt")}
    assert made.versions[0].files == expected
    assert kaggle.find("ada/exp-0-3124") == Existing(1, private=True)

    (folder / "a.txt").write_text("new")
    kaggle.add_version(folder, "ada/exp-0-3124", title="exp_0.3124", message="better")
    assert made.versions[1].files == {**expected, "a.txt": b"new"}
    assert made.versions[1].notes == "better"
    assert kaggle.find("ada/exp-0-3124") == Existing(2, private=True)
    assert capsys.readouterr().out == ""  # the client's own words stay out of ours


def test_public(server: Any, folder: Path) -> None:
    KaggleDatasets().create(folder, "ada/public-data", title="public data", public=True)
    assert server.datasets["ada/public-data"].private is False
    assert KaggleDatasets().find("ada/public-data") == Existing(1, private=False)


def test_a_token_says_whose_it_is(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.setenv("KAGGLE_API_TOKEN", fake_kaggle.TOKEN)
    assert KaggleDatasets().user == "ada"


@pytest.mark.parametrize("key", [None, "a-wrong-key"])
def test_no_key_or_a_wrong_one(
    server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("KAGGLE_KEY")
    if key:
        monkeypatch.setenv("KAGGLE_KEY", key)
    with pytest.raises(CellflowError, match=r"kaggle\.com/settings") as caught:
        KaggleDatasets().find("ada/anything")
    assert key is None or key not in str(caught.value)


def test_what_kaggle_says_is_passed_on_without_the_key(
    server: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cellflow")
    server.refusal = f"the title is taken, said {fake_kaggle.KEY}"
    with pytest.raises(CellflowError, match="the title is taken") as caught:
        KaggleDatasets().create(folder, "ada/exp-0-3124", title="exp_0.3124", public=False)
    assert fake_kaggle.KEY not in str(caught.value) + caplog.text


def test_a_file_that_cannot_be_sent_makes_no_dataset(server: Any, folder: Path) -> None:
    server.failures["PUT"] = [400] * 3
    with pytest.raises(CellflowError, match="Upload unsuccessful"):
        KaggleDatasets().create(folder, "ada/exp-0-3124", title="exp_0.3124", public=False)
    assert "CreateDataset" not in server.calls and not server.datasets


def test_an_interrupted_upload_is_taken_up_again(server: Any, folder: Path) -> None:
    server.failures["PUT"] = [503]
    KaggleDatasets().create(folder, "ada/exp-0-3124", title="exp_0.3124", public=False)
    assert set(server.datasets["ada/exp-0-3124"].versions[0].files) == {
        "a.txt", "deep/er/b.bin", "deep/c.txt",
    }  # fmt: skip


def test_a_broken_server_is_no_missing_dataset(server: Any) -> None:
    server.failures["GetDataset"] = [500]
    with pytest.raises(CellflowError, match="look up ada/exp"):
        KaggleDatasets().find("ada/exp-0-3124")


def test_without_the_client(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(CellflowError, match=r'pip install "cellflow\[kaggle\]"'):
        KaggleDatasets()


def test_whose_key_it_is_is_known_without_asking(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert user_without_client() == "ada"
    monkeypatch.delenv("KAGGLE_USERNAME")
    assert user_without_client() is None
    (tmp_path / "home" / "kaggle.json").write_text('{"username": "grace", "key": "k"}')
    assert user_without_client() == "grace"
    assert server.calls == []

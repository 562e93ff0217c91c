from __future__ import annotations

import getpass
import socket
from pathlib import Path

import pytest

from cellflow import cli
from cellflow.config import check_config
from cellflow.config.host import ChecksConfig
from cellflow.engine.runtime.fault_report import without_names
from cellflow.errors import ConfigError


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "Jane Doe, private"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path / "jane"))
    monkeypatch.setenv("CELLFLOW_ENGINE", "torch")
    monkeypatch.setenv("CELLFLOW_TOKEN", "1234")
    monkeypatch.setenv("CUDA_HOST", "10.0.12.5")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    with pytest.raises(SystemExit) as caught:
        cli.main(["checks", "--report"])
    assert not caught.value.code
    text = capsys.readouterr().out
    assert text.startswith("```") and text.rstrip().endswith("```")
    for found in ("cellflow", "torch 2", "numpy", "tyro", "CELLFLOW_ENGINE=torch"):
        assert found in text
    assert "CELLFLOW_TOKEN is set" in text
    for private in ("Jane", "jane", "=1234", "10.0.12.5", "0123456789", "private", str(tmp_path)):
        assert private not in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("tcp://HOST:PORT, https://x.org/a", "tcp://HOST:PORT, https://x.org/a"),
        ("in /home/jo/x.csv, line 3", "in <path>, line 3"),
        ("~/secret/x", "<path>"),
        ("at /data/plate 7/a.tif, line 2", "at <path>, line 2"),
        ("/mnt/My Lab (old)/x.tif", "<path>"),
        (r"C:\Users\jane\my data\x.tif, y", "<path>, y"),
        (r"\\server\share\x", "<path>"),
        ("CUDA_VISIBLE_DEVICES='GPU-0a1b2c3d-1111'", "CUDA_VISIBLE_DEVICES='<device>'"),
        ("1/3 folds, a/b", "1/3 folds, a/b"),
    ],
)
def test_paths(text: str, left: str) -> None:
    assert without_names(text) == left


def test_people_and_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-pc")
    assert without_names("jane at lab-pc, janet") == "<user> at <host>, janet"


def test_one_form() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        check_config(ChecksConfig(json=True, report=True))

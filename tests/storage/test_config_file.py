from __future__ import annotations

from pathlib import Path

import pytest

from cellflow.config import TrackingConfig, TrainConfig
from cellflow.config.layers import with_settings
from cellflow.errors import ConfigError
from cellflow.storage.config_file import read_config_file, write_config_file


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    config = TrainConfig(fold=("1",), name="ünï", savedir=tmp_path)
    write_config_file(tmp_path / "train.yaml", "train", config)
    text = (tmp_path / "train.yaml").read_text(encoding="utf-8")
    assert text.startswith("# cellflow train --config train.yaml\ncommand: train\n")
    values = read_config_file(tmp_path / "train.yaml", "train")
    assert with_settings(TrainConfig(), values, "file") == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("command: oof\nrun: a\n", "is for cellflow oof, not for cellflow train"),
        ("- a\n- b\n", "expected lines of NAME: VALUE"),
        ("a: [", "cannot be read"),
        ("", "expected lines"),
        ("data_hash: x\nconfig: {}\n", "train.yaml"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"some\.yaml") as caught:
        read_config_file(path, "train")
    assert words in str(caught.value)
    with pytest.raises(ConfigError, match=r"no such file\. Did you mean .*some\.yaml\?"):
        read_config_file(tmp_path / "none.yaml", "train")


def test_no_secret_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef-key")
    config = TrainConfig(tracking=TrackingConfig(comment="with 0123456789abcdef-key in it"))
    write_config_file(tmp_path / "train.yaml", "train", config)
    assert "0123456789abcdef-key" not in (tmp_path / "train.yaml").read_text()

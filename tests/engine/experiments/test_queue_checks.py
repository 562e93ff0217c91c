"""What a queue says of all its experiments before the first of them starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from cellflow.config import QueueConfig
from cellflow.engine.experiments.experiment_file import read_experiments
from cellflow.engine.experiments.queue import run_queue
from cellflow.errors import ConfigError


def said(tmp_path: Path, text: str, **options: bool) -> str:
    """What a queue of these experiments says; nothing of it may have been started."""
    path = tmp_path / "season.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        run_queue(QueueConfig(file=path, queues_dir=tmp_path / "queues", **options))
    assert not (tmp_path / "queues").exists() and not (tmp_path / "runs").exists()
    return str(caught.value)


@pytest.mark.parametrize("options", [{}, {"debug": True}, {"dry_run": True}], ids=str)
def test_all_errors_of_all_experiments(
    tmp_path: Path, tiny_data: Path, options: dict[str, bool]
) -> None:
    colours = tmp_path / "colours"
    shutil.copytree(tiny_data, colours)
    table = pd.read_csv(colours / "images.csv", dtype=str)
    table["channels"] = "2"
    table.to_csv(colours / "images.csv", index=False)
    text = said(
        tmp_path,
        f"""
defaults: {{data: {tiny_data}, runs_dir: {tmp_path / "runs"}, device: cpu, min_train_masks: 1}}
experiments:
  - {{name: good}}
  - {{name: lost, data: {tmp_path / "nowhere"}}}
  - {{name: lost_too, data: {tmp_path / "nowhere"}}}
  - {{name: unseen, images: {tmp_path / "tset"}}}
  - {{name: start, pretrained_model: {tmp_path / "none.pt"}}}
  - {{name: wide, data: {colours}, chan: 3}}
  - {{name: split, k: 4}}
""",
        **options,
    )
    assert "good:" not in text
    assert "lost, lost_too: " in text and text.count("nowhere") <= 2
    assert f"unseen: {tmp_path / 'tset'}" in text
    assert "start: " in text and "none.pt" in text
    assert "wide: " in text and "--chan 3" in text
    assert "split: " in text and "--k 4, but there are 2 folds" in text


def test_experiments_that_want_other_folds_of_data_without_any(
    tmp_path: Path, tiny_data: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    (data / "folds.csv").unlink()
    text = said(
        tmp_path,
        f"""
defaults: {{data: {data}, runs_dir: {tmp_path / "runs"}, device: cpu, min_train_masks: 1}}
experiments: [{{name: a}}, {{name: b, k: 5}}, {{name: c, k: 3}}, {{name: d, k: 40}}]
""",
    )
    assert "c, d: " not in text and "b: " not in text and "a: " not in text
    assert "c: --k 3: " in text and "a would make them otherwise" in text
    assert "d: 40 folds need at least 40 groups" in text


def test_all_that_is_wrong_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "season.yaml"
    path.write_text(
        "experiments: [{name: a, sed: 1}, {name: b, n_epochs: 0}, 3, {name: c}, {name: c, k: x}]"
    )
    with pytest.raises(ConfigError) as caught:
        read_experiments(path)
    for part in ("sed: no such setting", "--n_epochs must be at least 1", "experiment 3 must have",
                 "k: expected a whole number", "found c more than once"):  # fmt: skip
        assert part in str(caught.value)


def test_what_is_wrong_stays_short(tmp_path: Path) -> None:
    """One long word in a grid is in the name of every experiment, and so was in every problem."""
    path = tmp_path / "season.yaml"
    word = "x" * 900
    path.write_text(f"grid: {{learning_rate: [{word}, 0.1], {word}: [1], seed: {list(range(40))}}}")
    with pytest.raises(ConfigError) as caught:
        read_experiments(path)
    text = str(caught.value)
    assert text.startswith("50 or more problems:") and "and 40 more" in text
    assert "expected a number, found 'xxx" in text and "no such setting" in text
    assert len(text) < 9000
    assert max(map(len, text.splitlines())) < 400 + len(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("grid: {seed: [" + "1, " * 2001 + "]}", "found 2,001 experiments, at most 2,000 are read"),
        ("experiments:\n" + "- {data: d}\n" * 9000, "found 2,001 experiments"),
        ("defaults: {" + ", ".join(f"x{i}: 1" for i in range(900)) + "}\ngrid: {seed: [" + "1, " * 900 + "]}",
         "x0: no such setting"),
    ],
)  # fmt: skip
def test_a_file_of_thousands_is_refused_in_no_time(
    tmp_path: Path, content: str, message: str
) -> None:
    """A near name was looked for 900 times in each of 900 experiments."""
    path = tmp_path / "season.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_experiments(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 9000

"""What `--help` shows of every setting."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from cellflow.cli import COMMANDS, main
from cellflow.cli.help_texts import with_flowing_texts
from cellflow.config import OptimConfig, TrainConfig


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines in the boxes of a command's help."""
    with pytest.raises(SystemExit):
        main([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    return [line[1:-1] for line in lines if line.startswith("│")]


@pytest.mark.parametrize("name", COMMANDS)
def test_texts_flow(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line ends where the next word does not fit, and not where it does in the source."""
    for line, after in itertools.pairwise(shown(name, capsys)):
        indent = len(line) - len(line.lstrip())
        goes_on = indent >= 20 and after.startswith(" " * indent) and after[indent].strip()
        if goes_on:
            word = after.split()[0]
            assert len(line.rstrip()) + 1 + len(word) > len(line) - 1, (line, after)


def test_the_twin_has_all_that_a_config_has() -> None:
    config = TrainConfig(name="mine", optim=OptimConfig(n_epochs=7))
    twin = with_flowing_texts(config)
    assert dataclasses.asdict(twin) == dataclasses.asdict(config)


def test_texts_of_a_parent_class_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(" ".join(shown("prepare", capsys)).split())
    assert "--colours, --no_colours (default" not in said
    assert "--max_pixels INT (default" not in said

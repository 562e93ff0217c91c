"""What `--help` shows of every setting."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools

import pytest

from cellflow.cli import COMMANDS, main
from cellflow.cli.help_texts import with_flowing_texts
from cellflow.config import OptimConfig, TrainConfig


def shown(name: str) -> list[str]:
    """Lines in the boxes of a command's help."""
    written = io.BytesIO()
    screen = io.TextIOWrapper(written, encoding="utf-8")  # pytest's own has boxes of other signs
    with contextlib.redirect_stdout(screen), pytest.raises(SystemExit):
        main([name, "--help"])
    screen.flush()
    lines = written.getvalue().decode().splitlines()
    found = [line[1:-1] for line in lines if line.startswith("│")]
    assert found
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_texts_flow(name: str) -> None:
    """A line ends where the next word does not fit, and not where it does in the source."""
    for line, after in itertools.pairwise(shown(name)):
        indent = len(line) - len(line.lstrip())
        goes_on = indent >= 20 and after.startswith(" " * indent) and after[indent].strip()
        if goes_on:
            word = after.split()[0]
            assert len(line.rstrip()) + 1 + len(word) > len(line) - 1, (line, after)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_default_is_empty(name: str) -> None:
    said = " ".join(" ".join(shown(name)).split())
    assert "(default: )" not in said
    assert "(default: None)" not in said
    assert "None}" not in said and "{None" not in said
    assert name != "predict" or "text files with one path a line. (required)" in said
    assert name != "oof" or "without it the newest run. (optional)" in said


def test_the_twin_has_all_that_a_config_has() -> None:
    config = TrainConfig(name="mine", optim=OptimConfig(n_epochs=7))
    twin = with_flowing_texts(config)
    assert dataclasses.asdict(twin) == dataclasses.asdict(config)


def test_texts_of_a_parent_class_are_there() -> None:
    said = " ".join(" ".join(shown("prepare")).split())
    assert "--colours, --no_colours (default" not in said
    assert "--max_pixels INT (default" not in said


def test_what_a_setting_takes() -> None:
    said = " ".join(" ".join(shown("train")).split())
    for words in (
        "--threads INT ",
        "--savedir PATH ",
        "--optimizer {sgd,adamw} ",
        "--diam_mean FLOAT ",
    ):
        assert words in said
    said = " ".join(" ".join(shown("predict")).split())
    assert "--diameter FLOAT|STR " in said and "--chan INT|STR " in said
    assert "[RUN]" in " ".join(shown("oof"))

"""Words of the command line that do not fit: told all at once, with what was meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import tyro

from cellflow.cli import COMMANDS, run_command
from cellflow.cli.meant import flags_of, unknown_command
from cellflow.cli.parsing import parse
from cellflow.cli.words import check_words
from cellflow.config import PruneConfig, TrainConfig, check_config
from cellflow.config.layers import blank_config
from cellflow.errors import ConfigError


def told(command: str, *words: str) -> str:
    """What is said of the words of a command."""
    with pytest.raises(ConfigError) as caught:
        check_words(command, words, blank_config(COMMANDS[command].config))
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("train --lr 0.1", "did you mean --learning_rate 0.1?"),
        ("train --epochs 5", "did you mean --n_epochs 5?"),
        ("train --bs=4", "did you mean --batch_size 4?"),
        ("train --batch 4", "did you mean --batch_size 4?"),
        ("train --folds 5", "--k 5 is for cellflow folds or run"),
        ("folds --n-folds 5", "did you mean --k 5?"),
        ("run --folds 5", "did you mean --k 5?"),
        ("train --gpu", "did you mean --device cuda?"),
        ("train --dask tcp://a:1", "did you mean --scheduler tcp://a:1?"),
        ("predict a --slurm", "did you mean --scheduler slurm?"),
        ("predict img --use_gpu", "did you mean --device cuda?"),
        ("train --pretrained cyto3", "did you mean --pretrained_model cyto3?"),
        ("train --model_type cyto", "did you mean --pretrained_model cyto?"),
        ("predict img --weights a.pt", "did you mean --pretrained_model a.pt?"),
        ("train --img_dir x", "did you mean --data x?"),
        ("train --train", "the command is: cellflow train"),
        ("train --learning_rat 1", "did you mean --learning_rate 1?"),
        ("train -fold 1", "did you mean --fold 1?"),
        (
            "train --eval_images 3",
            "train has no such flag; there are --eval_every, --eval_diameter\n",
        ),
        ("train --evl_every 3", "did you mean --eval_every 3?"),
        ("score a --plot", "--plot: score has no such flag; did you mean --outlines?\n"),
        (
            "oof --save_outlines",
            "--save_outlines: oof has no such flag; did you mean --outlines?\n",
        ),
        ("predict a --plot", "--plot: predict has no such flag; did you mean --export outlines?\n"),
        ("train --xyzzy 3", "--xyzzy: train has no such flag\n"),
        ("train --tta", "is for cellflow ensemble or predict or run"),
        ("predict img --do_3D", "two dimensions"),
        ("train --resume", "goes on where it stopped"),
        ("train --optimizer adam", "--optimizer takes one of sgd, adamw (did you mean adamw?)"),
        ("train --n_epochs ten", "--n_epochs takes a whole number, found 'ten'"),
        ("train --n_epochs 1.5", "--n_epochs takes a whole number, found '1.5'"),
        ("train --n_epochs", "--n_epochs takes a whole number, found nothing"),
        ("train --n_epochs --wandb", "--n_epochs takes a whole number, found nothing"),
        ("train --learning_rate fast", "--learning_rate takes a number, found 'fast'"),
        ("train --wandb yes", "--wandb takes no value, found 'yes'; --no_wandb turns it off"),
        ("train exp", "cellflow train takes flags only, found exp"),
        ("score a b", "cellflow score takes PRED and flags, found a b"),
        ("prepare", "SOURCE must be given: cellflow prepare SOURCE"),
        ("compare a", "B must be given: cellflow compare A B"),
        ("ensemble exp", "--images must be given"),
    ],
)
def test_what_was_meant(words: str, meant: str) -> None:
    assert meant in f"{told(*words.split())}\n"


def test_all_at_once_and_in_our_voice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command("train", ["--lr", "1", "--n_epochs", "ten", "--optimizer", "adam"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("cellflow: 3 problems:")
    assert said.endswith("\nAll flags: cellflow train --help\n")
    assert "─" not in said


@pytest.mark.parametrize(
    "words",
    [
        "train --cellprob_threshold -1 --fold 0 1 --no-wandb",
        "train --weight_decay=-inf --learning-rate 1e-3",
        "train --time_budget None --optimizer sgd",
        "predict a --model m --tta",
        "predict --model m -- -odd-name",
        "ensemble --images x --scales 0.5 1 exp other",
        "calibrate",
        "train --lr 1 --help",
        "oof exp --fill_holes False",
    ],
)
def test_what_fits_passes(words: str) -> None:
    command, *rest = words.split()
    check_words(command, rest, blank_config(COMMANDS[command].config))


@pytest.mark.parametrize(
    "words", ["a --yes b", "--yes a b", "--runs_dir x a b --yes", "--yes -- a b"]
)
def test_arguments_stand_anywhere(words: str) -> None:
    config = parse("prune", words.split(), config=PruneConfig)
    assert (config.runs, config.yes) == (("a", "b"), True)


def test_an_argument_that_looks_like_a_flag() -> None:
    config = parse("prune", ["--yes", "--", "-odd", "b"], config=PruneConfig)
    assert (config.runs, config.yes) == (("-odd", "b"), True)


def every_kind_of_flag() -> list[tuple[str, str, Any]]:
    """A flag of every type there is, with a command that has it."""
    found: dict[str, tuple[str, str, Any]] = {}
    for command, item in COMMANDS.items():
        for name, setting in flags_of(item.config).items():
            found.setdefault(str(setting.hint), (command, name, setting.hint))
    return list(found.values())


@pytest.mark.parametrize(("command", "name", "hint"), every_kind_of_flag())
@pytest.mark.parametrize("text", ["1", "-0.5", "x", "True", "None", "first"])
def test_it_is_the_parser_that_decides(command: str, name: str, hint: Any, text: str) -> None:
    """What passes the check is parsed, and what does not would not have been."""
    if get_origin(hint) and text == "first" and isinstance(get_args(hint)[0], str):
        text = get_args(hint)[0]
    config = COMMANDS[command].config
    needed = {name: ["x"] for name in ("predict", "prepare", "queue", "score", "verify")}
    needed |= {"compare": ["a", "b"], "export": ["--to", "archive"]}
    words = [*needed.get(command, []), f"--{name}", *([] if hint is bool else [text])]
    words += ["--images", "y"] if command == "ensemble" and name != "images" else []
    try:
        tyro.cli(
            config, default=blank_config(config), args=words, console_outputs=False,
            config=(tyro.conf.OmitArgPrefixes,),
        )  # fmt: skip
        fits = True
    except SystemExit:
        fits = False
    if fits:
        check_words(command, words, blank_config(config))
    else:
        told(command, *words)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("trian --fold 0", "did you mean: cellflow train --fold 0?"),
        ("Predict x", "did you mean: cellflow predict x?"),
        ("segment x", "did you mean: cellflow predict x?"),
        ("preprocess x", "did you mean: cellflow prepare x?"),
        ("kaggle_notebook", "did you mean: cellflow kaggle-notebook?"),
        ("--train --dir x", "did you mean: cellflow train?"),
        ("--dir x --pretrained_model cyto", "did you mean: cellflow predict?"),
        ("xyzzy", "There are: demo, prepare"),
    ],
)
def test_commands_that_were_meant(words: str, meant: str) -> None:
    assert meant in unknown_command(words.split())


@pytest.mark.parametrize("text", ["5", "90", "5x", "h", "", "1.2.3h", "-5h"])
def test_a_time_has_its_unit(text: str) -> None:
    with pytest.raises(ConfigError, match="with its unit, such as 8h, 90m"):
        check_config(TrainConfig(time_budget=text))


@pytest.mark.parametrize("text", ["5h", "30m", "90s", "1h30m", "0.5h", "20min"])
def test_times(text: str) -> None:
    check_config(TrainConfig(time_budget=text))


def test_the_command_line_itself(tmp_path: Path) -> None:
    """Exit codes and channels, as a shell sees them."""
    for words in (["trian"], ["train", "--lr", "1"], ["train", "--n_epochs", "ten"]):
        done = subprocess.run(
            [sys.executable, "-m", "cellflow", *words],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("cellflow: ")


def test_a_value_with_blanks_is_no_flag() -> None:
    check_words("train", ["--comment", "- second try"], blank_config(TrainConfig))

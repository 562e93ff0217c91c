"""Completion as a shell does it: the script that is printed, sourced, asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cellflow import cli
from cellflow.cli.completion import SHELLS, completion_script

ASK = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
_tyro_cellflow cellflow "${@: -1}" "${@: -2:1}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "cellflow.bash"
    path.write_text(completion_script("bash"))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("tra", ["train"]),
        ("train --n_e", ["--n_epochs"]),
        ("train --fold 2 --sg", ["--sgd"]),
        ("train --fold 2 --sched", ["--schedule", "--scheduler"]),
        ("train --schedule co", ["constant", "cosine"]),
        ("train --conf", ["--config"]),
        ("predict --export ma", ["masks"]),
        ("prune --no_ca", ["--no_caches"]),
        ("train --no_sg", []),
        ("oof --sg", []),
        ("kag", ["kaggle_notebook"]),
        ("kaggle_notebook --runs", ["--runs_dir"]),
    ],
)
def test_what_bash_offers(script: Path, words: str, offered: list[str]) -> None:
    command = ["bash", "-c", ASK, "ask", str(script), "cellflow", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (sorted(done.stdout.split()), done.stderr) == (offered, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--completion", shell])
    assert stop.value.code == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert all(f"'{name.replace('-', '_')}': " in told.out for name in cli.COMMANDS)
    assert len(told.out.encode()) < 2**17  # fish hands it to Python as one argument


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_what_fish_offers() -> None:
    ask = f"{completion_script('fish')}\ncomplete -C 'cellflow train --sched'"
    done = subprocess.run(["fish"], input=ask, capture_output=True, text=True, check=True)
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert (offered, done.stderr) == (["--schedule", "--scheduler"], "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_can_read_it() -> None:
    subprocess.run(["zsh", "-n"], input=completion_script("zsh"), text=True, check=True)


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_other_shells(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--completion", *words])
    assert stop.value.code == 2
    assert "--completion takes one of bash, zsh, fish, found" in capsys.readouterr().err

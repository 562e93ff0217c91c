"""The steps of a Dockerfile taken without Docker: each stage in a folder and a virtual environment of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Stage", "take_steps"]


@dataclass
class Stage:
    """What a stage of a Dockerfile has made.

    Attributes
    ----------
    root : Path
        Folder in place of /, but for Python and the system, which are those of this machine.
    here : Path
        The working directory.
    env : dict
        Variables that its commands get.
    entry : list of list of str
        ENTRYPOINT and CMD.
    """

    root: Path
    here: Path
    env: dict[str, str]
    entry: dict[str, list[str]] = field(default_factory=dict)

    def path(self, text: str) -> Path:
        """A path of the Dockerfile."""
        return self.root / text.lstrip("/") if text.startswith("/") else self.here / text

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command as in a container of it."""
        return subprocess.run(
            command, cwd=self.here, env=self.env, capture_output=True, text=True, check=False
        )


def take_steps(file: Path, context: Path, folder: Path) -> Stage:
    """Take all steps of a Dockerfile; the last stage.

    Parameters
    ----------
    file : Path
        Dockerfile of FROM, ARG, WORKDIR, COPY, ENV, RUN, USER, ENTRYPOINT and CMD, whose commands name no
        absolute path.
    context : Path
        Folder that COPY copies from, less what .dockerignore leaves out: tracked files only.
    folder : Path
        Where stages are made.
    """
    stages: dict[str, Stage] = {}
    stage = None
    for line in _instructions(file.read_text()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.partition(" AS ")[2] or str(len(stages))
            stage = stages[name] = _new_stage(folder / name)
        elif stage is not None:
            _step(word, rest.strip(), stage, stages, context)
    assert stage is not None
    return stage


def _instructions(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def _new_stage(root: Path) -> Stage:
    python = os.environ.get("PYTHON", sys.executable)
    subprocess.run([python, "-m", "venv", root / "python"], check=True)
    kept = {
        name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "LANG", "LC_"))
    }
    path = os.pathsep.join([str(root / "python" / "bin"), "/usr/bin", "/bin"])
    home = root / "root"
    home.mkdir()
    return Stage(root, root, {**kept, "PATH": path, "HOME": str(home), "TMPDIR": str(home)})


def _step(word: str, rest: str, stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    if word == "ARG":
        name, _, default = rest.partition("=")
        stage.env[name] = os.environ.get(name, default)
    elif word == "ENV":
        name, _, value = rest.partition("=")
        stage.env[name] = str(stage.path(value)) if value.startswith("/") else value
    elif word == "WORKDIR":
        stage.here = stage.path(rest)
        stage.here.mkdir(parents=True, exist_ok=True)
    elif word == "COPY":
        _copy(rest.split(), stage, stages, context)
    elif word == "RUN":
        # not --no-cache-dir: an image has no use for pip's cache, this machine has
        done = stage.run(["bash", "-euc", rest.replace("--no-cache-dir ", "")])
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout}\n{done.stderr}"
    elif word in ("ENTRYPOINT", "CMD"):
        stage.entry[word] = json.loads(rest)
    else:
        assert word == "USER", word


def _copy(words: list[str], stage: Stage, stages: dict[str, Stage], context: Path) -> None:
    *flags, source, target = words
    if flags:
        (name,) = (flag.removeprefix("--from=") for flag in flags)
        shutil.copytree(stages[name].path(source), stage.path(target))
        return
    for name in _context(context):
        if source == "." or name == source:
            place = stage.path(target) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(context / name, place)


def _context(context: Path) -> list[str]:
    """Files that Docker would be sent: what .dockerignore takes back in, of what is tracked."""
    lines = (context / ".dockerignore").read_text().split()
    kept = [line[1:] for line in lines if line.startswith("!")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *kept]
    return subprocess.run(
        command, cwd=context, capture_output=True, text=True, check=True
    ).stdout.splitlines()

"""Real processes that are killed at random moments, interrupted, or train together."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from narrow import NarrowUNet
from training_runs import assert_equal_runs

from cellflow.config import ModelConfig, TrainConfig
from cellflow.engine.training import fold_trainer
from cellflow.engine.training.start_network import start_stepper
from cellflow.engine.training.train import train
from cellflow.nn.checkpoint import load_state, save_model_file
from cellflow.nn.step import Stepper
from cellflow.storage.run_folder import FoldFolder, RunFolder

DRIVER = """
import sys
from cellflow.cli import main
from cellflow.engine.training import fold_checkpoint

if __name__ == "__main__":
    if sys.argv[1] == "often":  # a state after every step: most kills then come inside a save
        fold_checkpoint.SAVE_SECONDS, fold_checkpoint.SAVE_SHARE = 0.0, float("inf")
    main(sys.argv[2:])
"""
EPOCHS = 5


def flags(config: TrainConfig, runs_dir: Path, *more: str) -> list[str]:
    return [
        *("train", "--fold", "1", "--data", str(config.data), "--runs_dir", str(runs_dir)),
        *("--diam_mean", "17", "--adam", "--schedule", "cosine", "--n_epochs", str(EPOCHS)),
        *("--batch_size", "2", "--bsize", "64", "--min_train_masks", "1", "--eval_every", "2"),
        *("--ema", "0.9", "--device", "cpu", "--amp", "off", "--threads", "1", *more),
    ]


def start(folder: Path, how: str, words: list[str]) -> subprocess.Popen[str]:
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    return subprocess.Popen(
        [sys.executable, str(driver), how, *words], stderr=subprocess.PIPE, text=True
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process says, up to the line with a text."""
    assert process.stderr is not None
    said = ""
    while text not in said:
        line = process.stderr.readline()
        assert line, said  # it has ended
        said += line
    return said


def fold_files(runs_dir: Path) -> FoldFolder:
    return RunFolder(runs_dir / "exp").fold(1)


@pytest.fixture(scope="module")
def uninterrupted(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_dir = tmp_path_factory.mktemp("uninterrupted") / "runs"
    process = start(runs_dir.parent, "often", flags(tiny_config, runs_dir))
    assert process.wait(timeout=300) == 0, process.stderr and process.stderr.read()
    return runs_dir


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(
    tiny_config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    """SIGKILL again and again, with and without workers: in the end every bit is what it would have been."""
    rng, runs_dir = random.Random(), tmp_path / "runs"
    files, seen = fold_files(runs_dir), []
    for attempt in range(40):
        workers = ("--workers", str(attempt % 2))
        process = start(tmp_path, "often", flags(tiny_config, runs_dir, *workers))
        before = files.last.stat().st_mtime_ns if files.last.exists() else 0
        while process.poll() is None:
            time.sleep(0.01)
            if files.last.exists() and files.last.stat().st_mtime_ns != before:
                time.sleep(rng.uniform(0.0, 1.5))
                process.kill()
                break
        code = process.wait(timeout=60)
        if code == 0:
            break
        assert code == -signal.SIGKILL, process.stderr and process.stderr.read()
        progress = load_state(files.last)["progress"]
        position = progress["epoch"] + progress["step"] / 2
        assert not seen or position >= seen[-1]
        seen.append(position)
    assert code == 0
    assert len(seen) >= 2
    assert_equal_runs(files, fold_files(uninterrupted))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_inside_an_epoch(
    tiny_config: TrainConfig, uninterrupted: Path, tmp_path: Path, number: int, code: int
) -> None:
    """The state is saved though no save is due, and the same command ends where it would have."""
    runs_dir = tmp_path / "runs"
    words = flags(tiny_config, runs_dir, "--workers", "1")
    process = start(tmp_path, "rarely", words)
    said = read_until(process, "epoch 1/")
    process.send_signal(number)
    said += process.communicate()[1]
    assert process.returncode == code, said
    assert "everything is saved" in said
    assert "the same command goes on where it stopped" in said
    assert "Traceback" not in said
    progress = load_state(fold_files(runs_dir).last)["progress"]
    assert 1 <= progress["epoch"] < EPOCHS
    again = start(tmp_path, "rarely", words)
    assert again.wait(timeout=300) == 0, again.stderr and again.stderr.read()
    assert_equal_runs(fold_files(runs_dir), fold_files(uninterrupted))


@pytest.mark.slow
def test_interrupted_inside_an_evaluation(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of the epoch are kept; only the evaluation is done again."""
    config = replace(trained, runs_dir=tmp_path, fold=("1",))
    files = RunFolder(tmp_path / "tiny").fold(1)
    score = fold_trainer.Validator.score

    def interrupted(self: Any, *rest: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return score(self, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(fold_trainer.Validator, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    progress = load_state(files.last)["progress"]
    assert (progress["epoch"], progress["step"], progress["evaluations"]) == (1, 2, [])
    train(config)
    theirs = RunFolder(trained.runs_dir / trained.name).fold(1)
    assert_equal_runs(files, theirs)


@pytest.mark.slow
def test_the_second_of_two_trainers_is_told_of_the_first(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    runs_dir = tmp_path / "runs"
    first = start(tmp_path, "rarely", flags(tiny_config, runs_dir))
    try:
        read_until(first, "fold 1:")
        second = start(tmp_path, "rarely", flags(tiny_config, runs_dir))
        assert second.stderr is not None
        message = second.stderr.read()
        if first.poll() is not None:
            pytest.skip("the first training was over before the second had started")
        assert second.wait(timeout=60) == 1
        assert f"process {first.pid} on {socket.gethostname()}" in message
    finally:
        first.kill()
        first.wait()


@pytest.mark.slow
def test_two_processes_equal_one_that_takes_the_halves_in_turn(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDP over gloo against gradient accumulation; the last batch of an epoch has a crop for one only."""
    optim = replace(
        tiny_config.optim, optimizer="sgd", schedule="constant", learning_rate=0.01, n_epochs=2
    )
    before = NarrowUNet.build(diam_mean=17.0, seed=3)
    save_model_file(tmp_path / "before.pt", before, {})
    model = ModelConfig(pretrained_model=str(tmp_path / "before.pt"))
    config = replace(
        tiny_config, runs_dir=tmp_path / "one", name="exp", fold=("1",), model=model, optim=optim
    )

    def in_halves(*rest: Any) -> Stepper:
        stepper = start_stepper(*rest)
        stepper.pieces = 2
        return stepper

    with monkeypatch.context() as patched:
        patched.setattr(fold_trainer, "start_stepper", in_halves)
        train(config)
    words = [
        *("train", "--fold", "1", "--data", str(config.data), "--runs_dir", str(tmp_path / "two")),
        *(
            "--init",
            str(tmp_path / "before.pt"),
            "--sgd",
            "--schedule",
            "constant",
            "--learning_rate",
            "0.01",
        ),
        *("--n_epochs", "2", "--batch_size", "2", "--bsize", "64", "--min_train_masks", "1"),
        *("--eval_every", "2", "--device", "cpu", "--amp", "off", "--threads", "1"),
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*torchrun, "-m", "cellflow", *words], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("epoch 2/2") == 1
    one, two = (load_state(fold_files(tmp_path / name).last) for name in ("one", "two"))
    for name, value in before.named_parameters():
        if name.startswith("diam"):
            continue
        moved = (one["net"][name] - value).norm()
        apart = (one["net"][name] - two["net"][name]).norm()
        assert apart <= 1e-3 * moved + 1e-7, name
    losses = [[row["train_loss"] for row in state["progress"]["history"]] for state in (one, two)]
    assert math.isnan(losses[0][0]) and math.isnan(losses[1][0])  # the start model is not trained
    assert losses[0][1:] == pytest.approx(losses[1][1:], rel=1e-4)
    evaluated = [
        {(row["epoch"], row["id"]) for row in state["progress"]["evaluations"]}
        for state in (one, two)
    ]
    assert evaluated[0] == evaluated[1]
    assert json.loads(fold_files(tmp_path / "two").summary.read_text())["finished"] == "epochs"

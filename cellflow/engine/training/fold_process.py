"""A fold in a process of its own, below a worker: it has signals, children and a GPU as a command does.

``python -m cellflow.engine.training.fold_process`` takes what to do from its input, and answers in lines of JSON.
When its input ends, its worker is gone or wants no more of it; it then saves its state and ends.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from cellflow.config import TrainConfig
from cellflow.engine.runtime.tasks import is_cancelled
from cellflow.engine.training.fold_result import FoldResult
from cellflow.errors import CellflowError

__all__ = ["Train", "train_below"]

POLL_SECONDS = 0.5
SAVE_SECONDS = 120.0
"""That a process may take to save its state once it is to end."""

Train = Callable[[TrainConfig], list[FoldResult]]


def train_below(train: Train, config: TrainConfig) -> FoldResult:
    """Train the one fold of a config in a new process, and log what it logs.

    Parameters
    ----------
    train : callable
        Of a module; trains the folds of a config.
    config : TrainConfig
        Settings.

    Raises
    ------
    CellflowError
        What went wrong there, or how the process ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "cellflow.engine.training.fold_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump((train, config), process.stdin)
        process.stdin.flush()
        answer = _listen(process.stdout)
    except BrokenPipeError:
        answer = None
    finally:
        process.stdin.close()
        _end(process)
        process.stdout.close()
    if answer is None:
        raise CellflowError(
            f"fold {config.fold[0]} ended with exit code {process.returncode}; the same command goes on."
        )
    if "error" in answer:
        raise CellflowError(answer["error"])
    return FoldResult(**answer["result"])


def _listen(stream: IO[bytes]) -> dict[str, Any] | None:
    """Log what the process logs, until it says what came out; None where it ends, or is to end, before."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stream, lines), daemon=True).start()
    while not is_cancelled():
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if not line:
            return None
        message: dict[str, Any] = json.loads(line)
        if "log" not in message:
            return message
        record = logging.makeLogRecord(message["log"])
        logging.getLogger(record.name).handle(record)
    return None


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    with suppress(ValueError):  # closed: nobody listens any more
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=SAVE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _main() -> None:
    """Body of the process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    train, config = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_input, daemon=True).start()
    os.environ["TQDM_DISABLE"] = "1"
    logger = logging.getLogger("cellflow")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Sender(answers))
    fold = config.fold[0]
    try:
        _send(answers, {"result": asdict(train(config)[0])})
    except CellflowError as error:
        _send(answers, {"error": f"fold {fold}: {error}"})
    except Exception:
        _send(answers, {"error": f"fold {fold} failed:\n{traceback.format_exc()}"})


def _end_with_input() -> None:
    """Ask this process to end once nobody is at the other side of its input."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(1)


class _Sender(logging.Handler):
    """Sends log lines to the worker."""

    def __init__(self, answers: IO[str]):
        super().__init__(logging.INFO)
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        line = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        with suppress(OSError):  # the worker is gone
            _send(self._answers, {"log": line | {"msg": record.getMessage()}})


def _send(answers: IO[str], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    _main()

"""One fold per GPU: a process each, whose messages come out here."""

from __future__ import annotations

import logging
import logging.handlers
import math
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from cellflow.config import RuntimeConfig, TrainConfig
from cellflow.engine.runtime.interruption import Interruption
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.runtime.time_budget import Budget
from cellflow.engine.training.fold_result import FoldResult
from cellflow.errors import CellflowError

__all__ = ["devices_for", "train_side_by_side"]

POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)

Train = Callable[[TrainConfig], list[FoldResult]]


def devices_for(folds: list[int], runtime: RuntimeConfig, machine: Machine) -> list[str]:
    """Devices to train folds on side by side; fewer than two means one after the other.

    All GPUs of the machine, unless the user named one, or torchrun uses them all for each fold.
    """
    if machine.device.type != "cuda" or machine.ranks.world > 1 or runtime.device != "auto":
        return [str(machine.device)]
    count = min(torch.cuda.device_count(), len(folds))
    return [f"cuda:{index}" for index in range(count)]


@dataclass(frozen=True)
class _Child:
    fold: int
    device: str
    process: BaseProcess
    answer: Connection


def train_side_by_side(
    config: TrainConfig, folds: list[int], devices: list[str], train: Train
) -> list[FoldResult]:
    """Train folds in processes of their own, as many at a time as there are devices.

    A fold that fails does not stop the others; its error is raised at the end. Ctrl-C and SIGTERM reach
    every process, and each saves its state.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    folds : list of int
        Folds to train.
    devices : list of str
        Where, such as cuda:0.
    train : callable
        Trains the folds of a config; runs in the new processes.

    Returns
    -------
    list of FoldResult
        In the order of the folds.
    """
    _log.info("training %d folds on %s, a process each", len(folds), ", ".join(devices))
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    listener = logging.handlers.QueueListener(messages, _Forward())
    listener.start()
    waiting, running = list(folds), list[_Child]()
    free = list(devices)
    answers: dict[int, FoldResult | CellflowError] = {}
    budget = Budget.of(config.time_budget)
    signals, is_stopping = Interruption(), False
    try:
        with signals:
            while waiting or running:
                while waiting and free and not signals.received:
                    share = budget.part(math.ceil(len(waiting) / len(devices))).left
                    child = _start(config, waiting.pop(0), free.pop(0), share, train, messages)
                    running.append(child)
                if signals.received and not is_stopping:
                    is_stopping, waiting = True, []
                    _pass_on(signals.received, running)
                for child in _ended(running):
                    running.remove(child)
                    free.append(child.device)
                    answers[child.fold] = _answer(child)
            signals.check()
    finally:
        _pass_on(signal.SIGTERM, running)
        for child in running:
            child.process.join()
        listener.stop()
        messages.close()
    return _results(folds, answers)


def _start(
    config: TrainConfig, fold: int, device: str, seconds: float, train: Train, messages: Any
) -> _Child:
    runtime = replace(config.runtime, device=device)
    budget = f"{max(1.0, seconds):.0f}s" if math.isfinite(seconds) else None
    of_fold = replace(config.of_fold(fold), runtime=runtime, time_budget=budget)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(train, of_fold, theirs, messages))
    process.start()
    theirs.close()
    return _Child(fold, device, process, ours)


def _work(train: Train, config: TrainConfig, answer: Connection, messages: Any) -> None:
    """Body of a process: train, send the result or the error."""
    os.environ["TQDM_DISABLE"] = "1"  # several bars on one terminal are unreadable
    logger = logging.getLogger("cellflow")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.handlers.QueueHandler(messages))
    try:
        answer.send(train(config)[0])
    except CellflowError as error:
        answer.send(CellflowError(f"fold {config.fold[0]}: {error}"))
    except KeyboardInterrupt:
        pass
    except Exception:
        answer.send(CellflowError(f"fold {config.fold[0]} failed:\n{traceback.format_exc()}"))


class _Forward(logging.Handler):
    """Gives log lines of another process to the handlers here."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


def _ended(running: list[_Child]) -> list[_Child]:
    """Processes that have ended; waits a moment for the next one."""
    wait([child.process.sentinel for child in running], timeout=POLL_SECONDS)
    return [child for child in running if not child.process.is_alive()]


def _pass_on(number: int, running: list[_Child]) -> None:
    for child in running:
        if child.process.is_alive() and child.process.pid:
            os.kill(child.process.pid, number)


def _answer(child: _Child) -> FoldResult | CellflowError:
    try:
        answer: FoldResult | CellflowError = child.answer.recv()
    except EOFError:
        code = child.process.exitcode
        return CellflowError(
            f"fold {child.fold} on {child.device} ended with exit code {code}; the same command goes on."
        )
    return answer


def _results(folds: list[int], answers: dict[int, FoldResult | CellflowError]) -> list[FoldResult]:
    errors = [str(item) for item in answers.values() if isinstance(item, CellflowError)]
    if errors:
        raise CellflowError("\n".join(errors))
    return [item for item in (answers[fold] for fold in folds) if isinstance(item, FoldResult)]

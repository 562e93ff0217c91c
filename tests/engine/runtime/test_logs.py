from __future__ import annotations

import io
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.logging import RichHandler
from tqdm import tqdm

from cellflow.engine.runtime.logs import log_to, log_to_console

LOGGER = logging.getLogger("cellflow")
LOG = logging.getLogger("cellflow.engine.somewhere")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Begin as a new process does; give back the loggers as they were."""
    root = logging.getLogger()
    before = [(item, list(item.handlers), item.level) for item in (root, LOGGER)]
    LOGGER.handlers.clear()
    LOGGER.setLevel(logging.NOTSET)
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


def replace_stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """In the test itself: pytest puts its own stderr in place after the fixtures."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def add_to_root(handler: logging.Handler) -> None:
    logging.getLogger().addHandler(handler)


def test_a_line_appears_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    console = replace_stderr(monkeypatch)
    for _ in range(3):
        log_to_console()
    LOG.info("fold %d", 2)
    LOG.debug("details")
    assert console.getvalue() == "fold 2\n"


def test_root_handlers_on_the_console_do_not_double_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Colab and Kaggle, where the root logger has a handler before and after we come."""
    console = replace_stderr(monkeypatch)
    add_to_root(logging.StreamHandler())
    log_to_console()
    add_to_root(logging.StreamHandler(console))
    add_to_root(RichHandler(console=Console(file=console)))
    add_to_root(AbslLike(console))
    LOG.warning("once")
    assert console.getvalue() == "once\n"


def test_lines_of_others_still_reach_those_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    console = replace_stderr(monkeypatch)
    add_to_root(logging.StreamHandler())
    log_to_console()
    logging.getLogger("matplotlib").warning("theirs")
    logging.getLogger("cellflower").warning("no relation")
    assert console.getvalue() == "theirs\nno relation\n"


def test_without_us_those_handlers_print_our_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    console = replace_stderr(monkeypatch)
    add_to_root(logging.StreamHandler())
    log_to_console()
    LOGGER.handlers.clear()
    LOG.warning("shown by root")
    assert console.getvalue() == "shown by root\n"


def test_root_handlers_elsewhere_see_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pytest's caplog is one of them, a file of a notebook another."""
    console = replace_stderr(monkeypatch)
    elsewhere = io.StringIO()
    add_to_root(logging.StreamHandler(elsewhere))
    log_to_console()
    LOG.info("to all")
    assert elsewhere.getvalue() == console.getvalue() == "to all\n"
    assert caplog.messages == ["to all"]


def test_stderr_is_followed_when_it_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    log_to_console()
    LOG.info("one")
    monkeypatch.setattr(sys, "stderr", second)
    LOG.info("two")
    monkeypatch.setattr(sys, "stderr", None)
    LOG.info("nowhere")
    assert (first.getvalue(), second.getvalue()) == ("one\n", "two\n")


def test_progress_bars_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar is wiped, the line written, the bar drawn again below."""
    console = replace_stderr(monkeypatch)
    log_to_console()
    with tqdm(total=3, desc="crops", file=console, ncols=40) as bar:
        bar.update()
        LOG.info("between")
        bar.update()
    lines = [line.split("\r")[-1] for line in console.getvalue().split("\n")]
    assert lines[0] == "between"
    assert lines[1].startswith("crops")


def test_secrets_reach_neither_console_nor_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each handler takes care by itself, whether or not the record has passed the other."""
    console = replace_stderr(monkeypatch)
    address = "https://hooks.slack.example/services/T0/B0/verysecret"
    monkeypatch.setenv("SLACK_WEBHOOK_URL", address)
    with log_to(tmp_path / "log.txt"):
        LOG.warning("cannot reach %s", address)
    log_to_console()
    LOG.warning("cannot reach %s", address)
    for shown in (console.getvalue(), (tmp_path / "log.txt").read_text()):
        assert "cannot reach" in shown
        assert "verysecret" not in shown


def test_a_file_gets_each_line_once(tmp_path: Path) -> None:
    """Folds in one process, one after the other."""
    first, second = tmp_path / "a" / "log.txt", tmp_path / "b" / "log.txt"
    with log_to(first):
        LOG.info("before")
        with log_to(second):
            LOG.info("both")
        LOG.info("after")
    with log_to(first):
        LOG.info("again")
    LOG.info("not wanted")
    assert read_log(first) == ["before", "both", "after", "again"]
    assert read_log(second) == ["both"]


def test_a_failure_closes_the_file(tmp_path: Path) -> None:
    before = list(LOGGER.handlers)
    with pytest.raises(ValueError, match="training"), log_to(tmp_path / "log.txt"):
        raise ValueError("training")
    assert LOGGER.handlers == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_said_once_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    console = replace_stderr(monkeypatch)
    log_to_console()
    with log_to(Path("/dev/full")):
        LOG.info("one")
        LOG.info("two")
    one, lacks, two = console.getvalue().splitlines()
    assert (one, two) == ("one", "two")
    assert lacks.startswith("/dev/full lacks lines that could not be written: ")
    assert "No space left on device" in lacks


def test_spawned_processes_speak_once(tmp_path: Path) -> None:
    """As folds side by side do it: a file of their own, and their records through a queue to here."""
    (tmp_path / "program.py").write_text(SPAWNING)
    done = run(str(tmp_path / "program.py"), str(tmp_path))
    assert sorted(done.stderr.split()) == ["fold0", "fold1"]
    assert sorted(read_log(tmp_path / "all.txt")) == ["fold0", "fold1"]
    assert [read_log(tmp_path / f"{fold}.txt") for fold in (0, 1)] == [["fold0"], ["fold1"]]


SPAWNING = """
import logging, multiprocessing, sys
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from cellflow.engine.runtime.logs import log_to, log_to_console
FOLDER = Path(sys.argv[-1])

class Forward(logging.Handler):
    def emit(self, record):
        logging.getLogger(record.name).handle(record)

def work(messages, fold):
    logger = logging.getLogger("cellflow")
    logger.setLevel(logging.INFO)
    logger.addHandler(QueueHandler(messages))
    with log_to(FOLDER / f"{fold}.txt"):
        logging.getLogger("cellflow.engine.training.train").info("fold%d", fold)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    logging.basicConfig(level=logging.INFO)
    log_to_console()
    with log_to(FOLDER / "all.txt"):
        listener = QueueListener(messages, Forward())
        listener.start()
        workers = [context.Process(target=work, args=(messages, fold)) for fold in (0, 1)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        listener.stop()
    sys.exit(max(worker.exitcode for worker in workers))
"""


def test_in_a_plain_process_stderr_gets_one_line_and_stdout_none() -> None:
    """Outside of pytest, with basicConfig before and after, and two commands in one process."""
    program = """
        import logging, sys
        from cellflow.engine.runtime.logs import log_to_console
        logging.basicConfig(level=logging.INFO)
        log_to_console()
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
        log_to_console()
        logging.getLogger("cellflow.train").info("epoch 1")
    """
    done = run("-c", textwrap.dedent(program))
    assert (done.stderr, done.stdout) == ("epoch 1\n", "")


class AbslLike(logging.Handler):
    """A handler around another, as absl-py 2.5 has it."""

    def __init__(self, stream: io.StringIO) -> None:
        super().__init__()
        self.python_handler = logging.StreamHandler(stream)

    def emit(self, record: logging.LogRecord) -> None:
        self.python_handler.emit(record)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def read_log(path: Path) -> list[str]:
    """Messages of a log file, without time and level."""
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()]

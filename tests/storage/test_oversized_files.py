"""A file with a tail of zeros of 3 GB, as a disk leaves them after a power cut: no reader takes it all into memory."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

import pytest
from readers import READERS, check

from cellflow.engine.experiments.experiment_file import read_experiments
from cellflow.engine.experiments.queue import _Queue
from cellflow.errors import ConfigError, DataError
from cellflow.io.audit_list import read_audit_list
from cellflow.io.formats import ReadOptions, read_source
from cellflow.storage.config_file import read_config_file
from cellflow.tracking.journal import read_journal

TAIL, KILOBYTES, SECONDS = 3 * 10**9, 1_000_000, 10.0


@pytest.mark.parametrize("name", READERS)
def test_a_tail_of_zeros_takes_neither_memory_nor_time(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    place = reader.make(tmp_path)
    for path in reader.files(place)[:6]:
        size = path.stat().st_size
        os.truncate(path, TAIL)
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        check(reader, place)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
        assert time.process_time() - started < SECONDS
        os.truncate(path, size)


def test_a_list_of_images(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.png\n")
    os.truncate(path, TAIL)
    with pytest.raises(DataError, match=r"list\.txt: 3,000,000,000 bytes are no list of images"):
        read_source(path, ReadOptions("images"))


def test_a_header_of_thousands_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    path.write_text("id,fold" + ",id,predicted" * 50_000 + "\n")
    started = time.process_time()
    with pytest.raises(DataError, match=r"audit\.csv line 1") as caught:
        read_audit_list(path)
    assert time.process_time() - started < 2
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("text", ["? [a]\n: 1", "a: 2020-13-41", "[" * 5000, "{1: {[]: 2}}"])
def test_settings_that_the_parser_does_not_refuse_in_its_own_words(
    tmp_path: Path, text: str
) -> None:
    """PyYAML lets through what the values of dates and keys make Python raise."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml cannot be read"):
        read_config_file(path, "train")
    with pytest.raises(ConfigError, match=r"a\.yaml cannot be read"):
        read_experiments(path)


@pytest.mark.parametrize(
    "text", ["null", "[]", '{"experiments": 3}', '{"experiments": {"a": 3}}', "[" * 20_000]
)
def test_the_states_of_a_queue(tmp_path: Path, text: str) -> None:
    """What cannot be read is begun anew."""
    (tmp_path / "queue.json").write_text(text)
    assert _Queue(tmp_path, [])._states == {}


def test_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = json.dumps({"event": "epoch", "fold": 0, "row": {"epoch": 1}})
    odd = json.dumps({"event": "epoch", "fold": [0], "row": {"epoch": {"a": 1}}})
    path.write_text("\n".join([good, "[" * 20_000, odd, odd, good]))
    assert [event["fold"] for event in read_journal(path)] == [[0], 0]


def test_yaml_of_more_lines_than_a_parser_takes(tmp_path: Path) -> None:
    """A block repeated to 1 MiB, as damage does it, was parsed for 6 seconds."""
    path = tmp_path / "a.yaml"
    for text in ("- a: 1\n" * 50_001, "x: [" + "1," * 50_001 + "]"):
        path.write_text(text)
        with pytest.raises(
            ConfigError, match=r"a\.yaml cannot be read.*lines and items, at most 50,000"
        ):
            read_experiments(path)


def test_a_grid_without_end_and_hundreds_of_experiments(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    values = ", ".join(map(str, range(1, 60)))
    path.write_text(
        "grid:\n" + "".join(f"  {name}: [{values}]\n" for name in ("seed", "k", "bsize"))
    )
    with pytest.raises(ConfigError, match=r"a\.yaml: found 205,379 experiments"):
        read_experiments(path)
    path.write_text(
        "experiments:\n" + "".join(f"  - {{name: a{n}, seed: {n}}}\n" for n in range(400))
    )
    started = time.process_time()
    assert len(read_experiments(path)) == 400
    assert time.process_time() - started < 3

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellflow.errors import DataError
from cellflow.rng import generator
from cellflow.storage.atomic import atomic_folder, atomic_path, write_csv, write_json
from cellflow.storage.hashing import hash_array, hash_bytes, hash_file, hash_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a" / "x.txt") as temporary:
        temporary.write_text("new")
        assert names(tmp_path / "a") == [temporary.name]
    assert (tmp_path / "a" / "x.txt").read_text() == "new"
    assert names(tmp_path / "a") == ["x.txt"]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("old")
    with pytest.raises(OSError, match="disk"), atomic_path(tmp_path / "x.txt") as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "x.txt").read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), atomic_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("half")
        raise ValueError("bad input")
    assert names(tmp_path) == []
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("1")
    assert names(tmp_path / "out") == ["a.txt"]


def test_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    with (
        pytest.raises(DataError, match=r"exists already.*--overwrite"),
        atomic_folder(tmp_path / "out"),
    ):
        pass
    with pytest.raises(ValueError, match="x"), atomic_folder(tmp_path / "out", replace=True):
        raise ValueError("x")
    assert names(tmp_path / "out") == ["old.txt"]
    with atomic_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new.txt").write_text("new")
    assert names(tmp_path / "out") == ["new.txt"]
    assert names(tmp_path) == ["out"]


def test_tables_and_json(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", pd.DataFrame({"id": ["a"], "x": [1.5]}))
    assert (tmp_path / "t.csv").read_text() == "id,x\na,1.5\n"
    write_json(tmp_path / "t.json", {"a": 1})
    assert (tmp_path / "t.json").read_text() == '{\n  "a": 1\n}\n'


def test_hashes_tell_things_apart(tmp_path: Path) -> None:
    zeros = np.zeros((2, 3), np.uint8)
    kinds = [zeros, zeros.T, zeros.astype(np.int8), zeros + 1, np.zeros(6, np.uint8)]
    assert len({hash_array(item) for item in kinds}) == len(kinds)
    big = np.arange(6, dtype=">i4")
    assert hash_array(big) == hash_array(big.astype("<i4"))
    assert hash_array(np.arange(10)[::2]) == hash_array(np.array([0, 2, 4, 6, 8]))
    assert hash_bytes(b"ab", b"c") != hash_bytes(b"a", b"bc")
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert hash_file(tmp_path / "f") != hash_bytes(b"x")


def test_generator_depends_on_seed_and_key_only() -> None:
    np.random.seed(1)  # noqa: NPY002
    first = generator(0, "crop", 1, 2).random(4)
    np.testing.assert_array_equal(first, generator(0, "crop", 1, 2).random(4))
    others = [generator(1, "crop", 1, 2), generator(0, "crop", 2, 1), generator(0, "order", 1, 2)]
    others += [generator(0, "crop", 12), generator(0, "crop", "1", 2)]
    assert all(not np.array_equal(first, other.random(4)) for other in others)

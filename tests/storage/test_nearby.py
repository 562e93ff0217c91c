from __future__ import annotations

from pathlib import Path

import pytest

from cellflow.storage.nearby import beside, nearby


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layout/images", "layout/masks", "runs", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "table.csv").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("layout/mask", " Did you mean layout/masks?"),
        ("Layouts/masks", " Did you mean layout/masks?"),
        ("layouts/other", " Did you mean layout?"),
        ("tabel.csv", " Did you mean table.csv?"),
        ("my cells", " Here there is: layout, runs, table.csv."),
        ("layout/zzz/x.png", " In layout there is: images, masks."),
        ("layout", ""),
        ("table.csv/x", ""),
    ],
)
def test_what_is_said_of_a_path_that_leads_nowhere(named: str, said: str) -> None:
    assert nearby(Path(named)) == said


def test_of_an_empty_folder_and_of_absolute_paths(tmp_path: Path) -> None:
    assert nearby(Path("runs/exp")) == ""
    assert nearby(tmp_path / "run") == f" Did you mean {tmp_path / 'runs'}?"
    assert nearby(Path("../elsewhere/x")) != ""


def test_a_folder_beside_this_one_has_a_name(tmp_path: Path) -> None:
    assert beside(Path("layout"), "-fixed") == "layout-fixed"
    assert beside(Path("my cells/"), "-fixed") == "'my cells-fixed'"
    assert beside(Path(), "-fixed") == f"{tmp_path}-fixed"
    assert beside(Path("layout/.."), "-fixed") == f"{tmp_path}-fixed"

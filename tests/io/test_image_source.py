from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave
from zarr_files import write_plate

from cellflow.errors import DataError
from cellflow.io.image_source import find_images


def image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.full((6, 7), value, np.uint8), check_contrast=False)
    return path


def values(source: Path) -> dict[str, int]:
    """The images that were found, each by its pixel."""
    return {name: int(read()[0, 0]) for name, read in find_images(source).items()}


def test_a_folder(tmp_path: Path) -> None:
    image(tmp_path / "b.png", 2)
    image(tmp_path / "a.1.tif", 1)
    image(tmp_path / "c.JPG", 0)
    image(tmp_path / ".hidden.png", 9)
    image(tmp_path / "deeper" / "d.png", 9)
    (tmp_path / "notes.csv").write_text("x")
    assert list(values(tmp_path).items()) == [("a.1", 1), ("b", 2), ("c", 0)]


def test_a_file(tmp_path: Path) -> None:
    assert values(image(tmp_path / "one.png", 3)) == {"one": 3}


def test_a_list(tmp_path: Path) -> None:
    far = image(tmp_path / "far" / "far away.png", 1)
    image(tmp_path / "lists" / "near.png", 2)
    image(tmp_path / "lists" / "a#b.png", 3)
    listed = tmp_path / "lists" / "images.TXT"
    words = [
        "# wells of plate 1",
        "",
        f"  {far}",
        "../lists/near.png",
        "   ",
        "a#b.png",
        "  #no.png",
    ]
    listed.write_bytes("\r\n".join(words).encode("utf-8-sig"))
    assert list(values(listed).items()) == [("far away", 1), ("near", 2), ("a#b", 3)]


def test_a_list_with_files_that_are_not_there(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    listed = tmp_path / "images.txt"
    listed.write_text("a.png\n\nb.png\nfolder\n")
    with pytest.raises(DataError) as caught:
        find_images(listed)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0] == f"{listed} line 3: no such file: {tmp_path / 'b.png'}"
    assert lines[1].startswith(f"{listed} line 4: a folder")
    listed.write_text("".join(f"{number}.png\n" for number in range(50)))
    with pytest.raises(DataError, match="and 30 more"):
        find_images(listed)


@pytest.mark.parametrize("text", [b"", b"# nothing\n\n"])
def test_a_list_of_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "images.txt").write_bytes(text)
    with pytest.raises(DataError, match="no images in this list"):
        find_images(tmp_path / "images.txt")


def test_a_list_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match="expected UTF-8 text"):
        find_images(tmp_path / "images.txt")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find_images(tmp_path / "nothing")
    with pytest.raises(DataError, match="no images in this folder"):
        find_images(tmp_path)


def test_one_id_for_two_images(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.png and a\.tif have the same id 'a'") as caught:
        find_images(tmp_path)
    assert (caught.value.id, caught.value.path) == ("a", tmp_path / "a.tif")
    listed = tmp_path / "images.txt"
    listed.write_text("a.png\na.png\n")
    with pytest.raises(DataError, match="same id 'a'"):
        find_images(listed)


def test_an_image_that_cannot_be_read_is_told_of_when_it_is_read(tmp_path: Path) -> None:
    whole = image(tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:40])
    readers = find_images(tmp_path)
    assert readers["a"]().shape == (6, 7)
    with pytest.raises(DataError, match=r"cut\.png: damaged"):
        readers["cut"]()


@pytest.mark.skipif(os.name == "nt", reason="another user, and the rights of folders")
def test_a_folder_that_may_not_be_looked_into() -> None:
    """Images beside it are found; with --recursive it is told."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        imsave(folder / "a.png", np.zeros((8, 8), np.uint8), check_contrast=False)
        (folder / "closed").mkdir(mode=0)
        find_images(folder)  # what is imported on the way is there
        user = os.geteuid()
        try:
            os.seteuid(user or 65534)
            assert list(find_images(folder)) == ["a"]
            with pytest.raises(DataError, match=r"closed: cannot be read \(Permission denied\)"):
                find_images(folder, recursive=True)
        finally:
            os.seteuid(user)


def test_slides_of_scanners_are_images_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "a.png")
    for name in ("b.svs", "c.NDPI", "d.mrxs", "e.dcm", "f.czi"):
        (tmp_path / name).write_text("x")
    (tmp_path / "d").mkdir()
    assert list(find_images(tmp_path)) == ["a", "b", "c", "d"]
    assert "(e.dcm): .dcm is taken, as a slide, only where the file is named itself" in caplog.text
    assert list(find_images(tmp_path / "*.[sdm]*")) == ["b", "d", "e"]
    assert list(find_images(tmp_path / "f.czi")) == ["f"]


def test_what_a_plate_names_and_is_not_there_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    plate = write_plate(tmp_path / "p.zarr", pixels, ("A/1", "B/2", "B/3"), "0.5", axes="yx")
    assert len(find_images(plate)) == 6
    assert not caplog.text
    shutil.rmtree(plate / "A/1/1")
    shutil.rmtree(plate / "B/2")
    assert list(find_images(plate)) == ["p.zarr__A__1__0", "p.zarr__B__3__0", "p.zarr__B__3__1"]
    assert caplog.text.count("names wells or fields that are not there: A/1/1, B/2") == 1

"""A folder of label maps: truth or prediction, one file an image."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io import places
from cellflow.io._dataset_facts import is_dataset
from cellflow.io.file_names import id_of, known_map_name, stem_of
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.seg_npy import read_seg_npy
from cellflow.io.images import IMAGE_SUFFIXES, list_images
from cellflow.io.mask_findings import check_label_map, read_label_map
from cellflow.io.places import SEG_ENDING, seg_files
from cellflow.io.source import Shape, Source, SourceImage, by_id
from cellflow.numeric.labels import instances_from_labels
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = ["LabelMaps", "gui_maps", "is_seg_ending", "list_maps", "read_map", "refuse_single_map"]

_log = logging.getLogger(__name__)


class LabelMaps(SourceFormat):
    """Label maps of a folder, or of ``masks/`` in it (or another name that `prepare` takes).

    Where names end in ``_cp_masks`` or ``_masks``, only those are label maps and the ending is no part
    of the id; the others are images, or what else Cellpose puts beside them. ``mask_filter``, an ending or
    ``mask_*``, goes before these two where a name fits it, and another usual ending after them where each
    image has a label map with it. Where there are none of them, files of Cellpose's GUI (``ID_seg.npy``) go
    before other images.
    """

    name = "label-maps"
    uses = frozenset({"truth", "prediction"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Any place: what is not there is reported when it is read."""
        return True

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the files."""
        folder = path
        # the labels/ of a dataset are its truth, and no prediction to score against it
        if path.is_dir() and not is_dataset(path):
            folder = places.find_folder(path, places.MASK_FOLDERS) or path
        ending, paths = _map_files(folder, options.mask_filter)
        stems = {file.stem for file in list_images(folder)} if ending else set[str]()
        read = partial(_cells, predicted=options.use == "prediction", colours=options.colours)
        images = by_id(
            SourceImage(_map_id(file, kind, stems), file, read_cells=partial(read, file))
            for file, kind in paths
        )
        if not images:
            raise DataError(
                f"{folder}: expected label maps (ID.tif, ID.png, ID_seg.npy, or ending in _masks or "
                "_cp_masks), found no image file and no _seg.npy. Check the path.",
                path=folder,
            )
        images = dict(sorted(images.items()))
        kind = f"label maps such as {next(iter(images.values())).path.name}"
        return Source(path, self.name, images, kind, ending)


def is_seg_ending(mask_filter: str) -> bool:
    """Whether files of Cellpose's GUI are meant; Cellpose itself has the suffix in its ``--mask_filter``."""
    return mask_filter in (SEG_ENDING, f"{SEG_ENDING}.npy")


def list_maps(folder: Path, mask_filter: str) -> list[Path]:
    """Files of a folder that may hold label maps with this ending of their names, sorted by name."""
    files = seg_files(folder) if is_seg_ending(mask_filter) else []
    return files or places.without_outline_pictures(list_images(folder))


def refuse_single_map(path: Path) -> None:
    """Refuse a label map where a folder of them, or a table, is expected."""
    gui = path.name.lower().endswith(f"{SEG_ENDING}.npy")
    if gui or path.suffix.lower() in IMAGE_SUFFIXES:
        found = "file of Cellpose's GUI" if gui else "image"
        raise DataError(
            f"{path}: expected a folder of label maps or a CSV, found a single {found}. Name its folder: "
            f"{quote(str(path.parent))}",
            path=path,
        )


def read_map(path: Path, *, predicted: bool = False, colours: bool = False) -> NDArray[np.int64]:
    """Read a label map of either kind, and refuse what cannot be one; see `read_label_map`."""
    if path.suffix.lower() == ".npy":
        return check_label_map(path, read_seg_npy(path), predicted=predicted)
    return read_label_map(path, predicted=predicted, colours=colours)


def same_cells(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether two label maps have the same cells, whatever their numbers."""
    if one.shape != other.shape:
        return False
    pairs = np.stack(
        [np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]]
    )
    # 0 is the background only where there is one
    zeros = np.stack([one, other]).reshape(2, -1) == 0
    if not np.array_equal(*zeros):
        return False
    first, second = pairs.reshape(2, -1)
    together = len(np.unique(first * (second.max() + 1) + second))
    return bool(together == first.max() + 1 == second.max() + 1)


def gui_maps(
    folders: tuple[Path, ...],
    images: Mapping[str, Path],
    known: Mapping[str, Path],
    *,
    colours: bool,
) -> list[SourceImage]:
    """``NAME_seg.npy`` of images that have no label map among those `known`, which is said, and of no image at all.

    The name before ``_seg`` is that of the image, or its id.
    """
    ids = {path.stem: name for name, path in images.items()} | {name: name for name in images}
    stems = {path.stem for place in dict.fromkeys(folders) for path in list_images(place)}
    files, alone = dict[str, Path](), list[SourceImage]()
    for path in (file for place in dict.fromkeys(folders) for file in seg_files(place)):
        name = path.stem[: -len(SEG_ENDING)]
        if name in ids:
            files.setdefault(ids[name], path)
        elif name not in stems:
            alone.append(SourceImage(name, path))
    _tell_of_both(files, known, colours=colours)
    taken = {name: path for name, path in files.items() if name not in known}
    if taken:
        names = few_text(path.name for path in taken.values())
        text = "The cells of %s are those of Cellpose's GUI (%s)."
        _log.info(text, plural(len(taken), "image"), names)
    return [*(SourceImage(name, path) for name, path in taken.items()), *alone]


def _tell_of_both(files: Mapping[str, Path], known: Mapping[str, Path], *, colours: bool) -> None:
    """Say of images that have both which is taken, and which of them differ."""
    both = [name for name in known if name in files]
    if not both:
        return
    differ = [name for name in both if _differ(known[name], files[name], colours=colours)]
    first = next(iter(differ or both))
    _log.log(
        logging.WARNING if differ else logging.INFO,
        "%s a label map and a file of Cellpose's GUI, such as %s and %s: the label maps are taken%s. "
        "--mask_filter %s takes the others.",
        "1 image has" if len(both) == 1 else f"{len(both)} images have",
        *(known[first].name, files[first].name),
        f"; the cells of {len(differ)} differ ({few_text(differ)})" if differ else "",
        SEG_ENDING,
    )


def _differ(path: Path, gui: Path, *, colours: bool) -> bool:
    """Whether both can be read, and hold other cells; what is wrong with a label map is told later."""
    with suppress(DataError):
        return not same_cells(read_map(path, colours=colours), read_map(gui))
    return False


def _map_files(folder: Path, mask_filter: str) -> tuple[str, list[tuple[Path, str]]]:
    """Label maps of a folder, each with the filter of its name, and that of most."""
    paths, gui = list_maps(folder, mask_filter), [(file, SEG_ENDING) for file in seg_files(folder)]
    paired = places.paired_ending(map(stem_of, paths))
    for kind in filter(None, dict.fromkeys((mask_filter, *places.CELLPOSE_MASKS, paired))):
        named = [(file, kind) for file in paths if id_of(stem_of(file), kind) is not None]
        if named:
            ids = {id_of(stem_of(file), kind) for file, _ in named}
            others = [item for item in gui if item[0].stem.removesuffix(SEG_ENDING) not in ids]
            return kind, named + others
    # where the GUI has written beside images, these are no label maps
    return (SEG_ENDING, gui) if gui else ("", [(file, "") for file in paths])


def _map_id(file: Path, kind: str, images: Container[str]) -> str:
    """The id of a label map, as the image beside it has it if there is one."""
    name = id_of(stem_of(file), kind) if kind else None
    return known_map_name(name, images) if name else file.stem


def _cells(file: Path, shape: Shape | None, *, predicted: bool, colours: bool) -> Instances:
    return instances_from_labels(read_map(file, predicted=predicted, colours=colours))

"""Images with label maps: ``images/`` and ``masks/``, or ``NAME.tif`` beside ``NAME_masks.tif``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote

from cellflow.errors import DataError
from cellflow.io import places
from cellflow.io.file_names import (
    id_of,
    image_filter,
    image_id_of,
    kind_of,
    known_map_name,
    mask_filters,
    name_of,
    stem_of,
)
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.elsewhere import half_kaggle, pair_of_folders, unread, where_else
from cellflow.io.formats.label_maps import gui_maps, is_seg_ending, list_maps, read_map
from cellflow.io.images import IMAGE_SUFFIXES, is_zarr, list_images, passed_over
from cellflow.io.mask_findings import looks_like_label_map
from cellflow.io.places import SEG_ENDING, seg_files
from cellflow.io.problems import Problems
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id
from cellflow.numeric.labels import instances_from_labels
from cellflow.storage.sizes import few_text, flag_text, plural
from cellflow.types import Instances

__all__ = ["MaskFolders"]

_log = logging.getLogger(__name__)

_ADVICE = " Check the path, or name the folder of label maps with --masks."
_ADVICE_IMAGES = " Check the path, or name the folder of images with --images."


class MaskFolders(SourceFormat):
    """A folder with images and label maps; gaps and labels of several parts stay: one label is one cell.

    It holds ``images/`` and ``masks/`` (or ``labels/``, ``annotations/``; capitals do not count) with
    files of the same name, or images beside label maps that ``mask_filter`` tells (Cellpose's
    way). Where the filters of the options give no pair at all, and just one pair of those that people
    use fits all files, that is taken and said. Images without a label map take the cells of
    ``NAME_seg.npy``, which Cellpose's GUI writes beside them.
    """

    name = "image-mask-folders"
    uses = frozenset({"prepare"})
    heeds = frozenset({"annotated_only", "masks", "images", "mask_filter", "img_filter", "colours"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Any folder."""
        return path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the pairs; files without a partner are problems."""
        folders = _places(path, options)
        ending = SEG_ENDING if is_seg_ending(options.mask_filter) else options.mask_filter
        found = _pairing(folders, ending, options.img_filter)
        if not found.pairs:
            found = _other_filters(folders, found)
        found = _with_gui_files(folders, found, options)
        if not found.pairs and places.is_image_folder(path):
            raise DataError(
                f"{path}: one image with a file for each cell. Name the folder of all images: "
                f"cellflow prepare {quote(str(path.parent))}",
                path=path,
            )
        if not found.images or not found.maps:
            raise DataError(_nothing_found(path, folders, found), path=path)
        if found.left_over:
            text = "%s whose name is not %s: left out."
            _log.warning(text, plural(found.left_over, "image"), kind_of(found.img_filter))
        images = by_id(found.images, options.problems)
        maps = by_id(found.maps, options.problems)
        if options.annotated_only and (without := sorted(images.keys() - maps.keys())):
            text = "%s without a mask left out (%s)."
            _log.warning(text, plural(len(without), "image"), few_text(without))
            images = {name: image for name, image in images.items() if name in maps}
        _add_problems(folders, found, images, maps, options.problems)
        places.tell_of_passed_over(*dict.fromkeys((folders.images, folders.masks)))
        if inside := _subfolders_text(folders):
            _log.warning("%s", inside)
        pairs: dict[str, SourceImage] = {}
        for name in sorted(images.keys() & maps.keys()):
            image = images[name].path
            read = partial(_cells, image, maps[name].path, options.colours)
            pairs[name] = FileImage(name, image, read_cells=read)
        return Source(path, "paired-files" if folders.paired else self.name, pairs)


@dataclass(frozen=True)
class _Folders:
    """Folders of images and of label maps; the same one for pairs."""

    images: Path
    masks: Path

    @property
    def paired(self) -> bool:
        return self.images == self.masks


@dataclass(frozen=True)
class _Pairing:
    """Images and label maps with the ids that two filters of names give them, and images of other names."""

    img_filter: str
    mask_filter: str
    images: list[SourceImage]
    maps: list[SourceImage]
    left_over: int

    @property
    def pairs(self) -> set[str]:
        return {image.id for image in self.images} & {mask.id for mask in self.maps}

    @property
    def fits(self) -> bool:
        """Whether each image has one label map and each label map one image."""
        counts = {len(self.pairs), len(self.images), len(self.maps)}
        return len(counts) == 1 and bool(self.images) and not self.left_over

    @property
    def flags(self) -> str:
        img = f" {flag_text('--img_filter', self.img_filter)}" if self.img_filter else ""
        return flag_text("--mask_filter", self.mask_filter) + img


def _places(folder: Path, options: ReadOptions) -> _Folders:
    images = options.images or places.find_folder(folder, places.IMAGE_FOLDERS)
    maps = options.masks or places.find_folder(folder, places.MASK_FOLDERS)
    neither = options.masks is None and options.images is None
    if neither and (images is None or maps is None):
        return _Folders(folder, folder)
    return _Folders(images or folder, maps or folder)


def _pairing(folders: _Folders, mask_filter: str, img_filter: str) -> _Pairing:
    files = places.without_outline_pictures(list_images(folders.images))
    maps = list_maps(folders.masks, mask_filter)
    if folders.paired:
        files, maps = _split_paired(list(dict.fromkeys([*files, *maps])), mask_filter)
    named = ((path, image_id_of(path, img_filter)) for path in files)
    images = [SourceImage(name, path) for path, name in named if name is not None]
    ids = {image.id for image in images}
    masks = [(path, id_of(stem_of(path), mask_filter)) for path in maps]
    return _Pairing(
        img_filter,
        mask_filter,
        images,
        [
            SourceImage(known_map_name(stem_of(path) if name is None else name, ids), path)
            for path, name in masks
        ],
        left_over=len(files) - len(images),
    )


def _split_paired(files: list[Path], mask_filter: str) -> tuple[list[Path], list[Path]]:
    """Images and label maps of one folder; other files that Cellpose writes are neither."""
    stems = {stem for path in files for stem in (path.stem, stem_of(path))}
    kinds = (*places.OUTPUT_ENDINGS, mask_filter)

    def stems_from_image(stem: str) -> bool:
        return any(id_of(stem, kind) in stems for kind in kinds)

    # What has a mask of its own and stems from no image is an image, whatever its name.
    own = {
        stem for stem in stems if name_of(stem, mask_filter) in stems and not stems_from_image(stem)
    }
    images = [
        path
        for path in files
        if stem_of(path) in own or not any(id_of(stem_of(path), kind) is not None for kind in kinds)
    ]
    # NAME_cp_masks is no mask of NAME_cp, unless NAME_cp is there.
    longer = tuple(end for end in kinds if end != mask_filter and end.endswith(mask_filter))
    maps = [
        path
        for path in files
        if (image := id_of(stem_of(path), mask_filter)) is not None
        and stem_of(path) not in own
        and (image in stems or not stem_of(path).endswith(longer))
    ]
    return images, maps


def _with_gui_files(folders: _Folders, found: _Pairing, options: ReadOptions) -> _Pairing:
    """With the files of Cellpose's GUI for images that have no label map."""
    if is_seg_ending(found.mask_filter):
        return found
    images = {image.id: image.path for image in found.images}
    known = {mask.id: mask.path for mask in found.maps}
    more = gui_maps((folders.images, folders.masks), images, known, colours=options.colours)
    return replace(found, maps=[*found.maps, *more])


def _other_filters(folders: _Folders, found: _Pairing) -> _Pairing:
    """Another pair of filters, where just one fits all files; else what was found."""
    fitting = _fitting(folders, found)
    if len(fitting) != 1:
        return found
    text = "No image %s has a mask %s; all %d pairs fit %s, so that is taken."
    names = kind_of(found.img_filter), kind_of(found.mask_filter)
    _log.warning(text, *names, len(fitting[0].pairs), fitting[0].flags)
    return fitting[0]


def _fitting(folders: _Folders, found: _Pairing) -> list[_Pairing]:
    """Pairings that leave no file over, one for each set of ids."""
    fitting: dict[frozenset[Path], _Pairing] = {}
    # what has a file of Cellpose's GUI is an image
    annotated = {path.stem.removesuffix(SEG_ENDING) for path in seg_files(folders.masks)}
    for img_filter, mask_filter in dict.fromkeys(_usual_filters(folders, found)):
        other = _pairing(folders, mask_filter, img_filter)
        if other.fits and not any(mask.path.stem in annotated for mask in other.maps):
            fitting.setdefault(frozenset(mask.path for mask in other.maps), other)
    return list(fitting.values())


def _usual_filters(folders: _Folders, found: _Pairing) -> Iterator[tuple[str, str]]:
    """Filters of images and masks that people use, and those that these names tell."""
    for img_filter in (found.img_filter, *places.IMAGE_ENDINGS):
        for mask_filter in (found.mask_filter, *places.MASK_ENDINGS):
            yield img_filter, mask_filter
    stems = map(stem_of, list_images(folders.masks))
    for mask_filter in (found.mask_filter, *mask_filters(stems)):
        other = _pairing(folders, mask_filter, "")
        images, ids = [image.path.stem for image in other.images], [mask.id for mask in other.maps]
        own = image_filter(images, ids)
        if own is not None:
            yield own, mask_filter


def _add_problems(
    folders: _Folders,
    found: _Pairing,
    images: dict[str, SourceImage],
    maps: dict[str, SourceImage],
    problems: Problems,
) -> None:
    if images.keys() == maps.keys():
        return
    beside_masks, beside_images = _Beside(folders.masks), _Beside(folders.images)
    for name in sorted(images.keys() - maps.keys()):
        where = folders.masks / name_of(name, found.mask_filter)
        problems.add(
            f"{images[name].path}: no mask; expected {where}.tif"
            + ("" if folders.paired else f" or {folders.masks / name}.tif")
            + f" (or .png).{beside_masks.instead(name)}"
            " Add it (all zero if the image has no cells) or remove the image. Where images were left out on purpose, "
            "--annotated_only takes the others.",
            name,
        )
    for name in sorted(maps.keys() - images.keys()):
        problems.add(
            f"{maps[name].path}: a mask without an image; expected an image named "
            f"{name_of(name, found.img_filter)}.{beside_images.instead(name, but=maps[name].path)}"
            " Add the image or remove the mask.",
            name,
        )


class _Beside:
    """What lies in a folder and was not taken, by names without ending."""

    def __init__(self, folder: Path) -> None:
        self._passed_over = {path.stem: (path, reason) for path, reason in passed_over(folder)}
        self._images = {path.stem: path for path in list_images(folder)}

    def instead(self, image_id: str, but: Path | None = None) -> str:
        """What is there for an image, but for the file that the message is of."""
        if image_id in self._passed_over:
            path, reason = self._passed_over[image_id]
            return f" {path.name} is there, but {reason}."
        for ending in places.MASK_ENDINGS:
            found = self._images.get(image_id + ending)
            if found is not None and found != but:
                return f" {found.name} is there: rename it, or add {flag_text('--mask_filter', ending)}."
        found = self._images.get(image_id)
        if found is not None and found != but and image_id.endswith(places.OUTPUT_ENDINGS):
            return (
                f" {found.name} is there, but its ending is one of what Cellpose writes beside images "
                f"({' '.join(places.OUTPUT_ENDINGS)}); rename it and its mask."
            )
        return ""


def _subfolders_text(folders: _Folders) -> str:
    """A line for sub-folders that hold images, with the command that reads one of them; empty where there are none."""
    inside = [
        path
        for path in sorted(folders.images.iterdir())
        if path.is_dir()
        and path.name[0] != "."
        and path not in (folders.masks, folders.images)
        and not is_zarr(path)
    ]
    counts = {path: len(list_images(path)) for path in inside}
    inside = [path for path in inside if counts[path]]
    if not inside:
        return ""
    first = min(inside, key=lambda path: not path.name.lower().startswith("train"))
    other = folders.masks / first.name
    masks = f" --masks {quote(str(other))}" if not folders.paired and other.is_dir() else ""
    count = plural(sum(counts.values()), "image")
    return (
        f"{count} in sub-folders of {folders.images}: not read ({few_text([path.name for path in inside])}). Read each "
        f"of them by itself: cellflow prepare {quote(str(first))}{masks} --out {quote(f'{first.name}-data')}"
    )


def _nothing_found(folder: Path, folders: _Folders, found: _Pairing) -> str:
    hint = half_kaggle(folder) or where_else(folder)
    other = unread(folder)
    several = _fitting(folders, found)
    if several:
        ways = " or ".join(sorted(pairing.flags for pairing in several))
        hint = f" More than one kind of names would fit: say {ways}." + hint
    elif found.images:
        hint = _likely_ending(found) or hint
    there = found.images or found.maps
    if there:
        hint = hint or pair_of_folders(folder)
        noun = "image" if found.images else "label map"
        missing = "but no label map" if found.images else "but no image"
        expected = kind_of(found.mask_filter if found.images else found.img_filter) + ".EXT"
        place = folders.masks if found.images else folders.images
        count = len({image.id for image in there})
        advice = _ADVICE if found.images else _ADVICE_IMAGES
        if found.images and not other:
            predict = f"cellflow predict {quote(str(folder))} --model cyto3"
            advice += f" To segment images that have no annotation: {predict}"
        return (
            f"{folder}: {plural(count, noun)} ({few_text([image.path.name for image in there])}) {missing}; "
            f"expected {expected} in {place}.{_hidden(place)}{hint or other or advice}"
        )
    below = _subfolders_text(folders)
    if below and not folders.paired and not other:
        hint = hint or f" {below}"
    hint = hint or pair_of_folders(folder)
    return (
        f"{folder}: no annotated images found. Looked for train.csv with train/ (Kaggle layout), "
        f"for images/ with masks/, for ID/images/ with ID/masks/, and for NAME.EXT beside "
        f"{kind_of(found.mask_filter)}.EXT or NAME_seg.npy (EXT: {' '.join(IMAGE_SUFFIXES)})."
        f"{_hidden(folder)}{hint or other or _ADVICE}"
    )


def _likely_ending(found: _Pairing) -> str:
    """The flag for the ending that gives the most images their label map, where none fits all."""
    names = {image.id for image in found.images}
    pairs = {
        ending: sum(name + ending in names for name in names) for ending in places.MASK_ENDINGS
    }
    best = max(pairs, key=lambda ending: pairs[ending])
    if not pairs[best]:
        return ""
    return (
        f" {plural(pairs[best], 'image')} would have a label map with "
        f"{flag_text('--mask_filter', best)}; the others need one too."
    )


def _hidden(folder: Path) -> str:
    files = passed_over(folder)
    if not files:
        return ""
    path, reason = files[0]
    return f" Passed over: {plural(len(files), 'file')} ({path.name}: {reason})."


def _cells(image: Path, path: Path, colours: bool, shape: Shape | None) -> Instances:
    try:
        masks = read_map(path, colours=colours)
    except DataError as error:
        if path.is_file() and looks_like_label_map(image):
            text = f"{error} The image {image.name} looks like a label map: are images and masks swapped?"
            raise DataError(text, **error.facts) from error
        raise
    if shape is not None and masks.shape != shape:
        text = (
            f"{path}: the mask is {masks.shape[0]} x {masks.shape[1]} (height x width), its image "
            f"{image.name} is {shape[0]} x {shape[1]}. Export the mask again at the image's size."
        )
        raise DataError(text, path=path, expected=shape, found=masks.shape)
    return instances_from_labels(masks)

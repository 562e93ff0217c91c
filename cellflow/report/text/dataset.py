"""What a dataset holds, as `cellflow prepare` prints it."""

from __future__ import annotations

import pandas as pd

from cellflow.storage.sizes import few_text, plural

__all__ = ["dataset_text"]


def dataset_text(images: pd.DataFrame, group: str | None) -> str:
    """Images, cells, cell types, groups and sizes in one line.

    Parameters
    ----------
    images : pandas.DataFrame
        A row per image: n_instances, height, width, channels, cell_type where there are any, and
        channel_names (``DAPI;GFP``) where they are known.
    group : str or None
        Column of what belongs together.
    """
    parts = [plural(len(images), "image"), plural(int(images["n_instances"].sum()), "cell")]
    empty = int((images["n_instances"] == 0).sum())
    if empty:
        parts.append(f"{plural(empty, 'image')} without cells")
    if "cell_type" in images:
        known = images["cell_type"][images["cell_type"] != ""]
        named = [f"{name} {count}" for name, count in known.value_counts().items()]
        parts.append(
            f"{plural(len(named), 'cell type')} ({few_text(named)})" if named else "no cell type"
        )
        if 0 < len(known) < len(images):
            parts.append(f"{plural(len(images) - len(known), 'image')} without a type")
    if group is not None:
        groups = images[group][images[group] != ""]
        alone = len(images) - len(groups)  # an image without a group stands for itself
        parts.append(f"{plural(groups.nunique() + alone, 'group')} ({group})")
        if alone:
            parts.append(f"{plural(alone, 'image')} without one")
    sizes = images[["height", "width"]].sort_values(["height", "width"]).drop_duplicates()
    ends = [f"{row.height} x {row.width}" for row in sizes.iloc[[0, -1]].itertuples()]
    parts.append(f"{' to '.join(dict.fromkeys(ends))} pixels (height x width)")
    channels = sorted(set(images["channels"]))
    if channels != [1]:
        names = set(images["channel_names"]) if "channel_names" in images else set()
        common = names.pop() if len(names) == 1 else ""
        called = f" ({', '.join(common.split(';'))})" if common else ""
        parts.append(f"{' or '.join(map(str, channels))} channels{called}")
    return ", ".join(parts)

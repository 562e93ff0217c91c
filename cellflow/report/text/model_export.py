"""What was exported, as `cellflow export` prints it."""

from __future__ import annotations

from typing import Any

from cellflow.storage.sizes import plural, size_text

__all__ = ["model_export_text"]

_NEXT = {
    "cellpose": "Open: in Cellpose 3's GUI, Models > Add custom torch model to GUI; more in {path}/README.md",
    "archive": "Next: cellflow predict FOLDER --model {path}; FOLDER holds new images",
    "bioimageio": "Tested by bioimageio.core: passed. Upload: https://bioimage.io/#/upload",
    "onnx": "How to get masks of it: docs/models.md, and {path}/README.md",
}


def model_export_text(export: Any) -> str:
    """A `ModelExport`: every file with its size, and what opens it."""
    sizes = [f"  {size_text(size):>9}  {path}" for path, size in export.files]
    folds = ", ".join(map(str, export.folds))
    head = f"{export.path}: {plural(len(export.folds), 'model')} (fold {folds})"
    return "\n".join([head, *sizes, _NEXT[export.to].format(path=export.path)])

"""Jupyter notebooks as files: nbformat 4.5, written without Jupyter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Cell", "notebook_text"]


@dataclass(frozen=True)
class Cell:
    """One cell: its name, which is its id and unique in the notebook, its kind and its text."""

    name: str
    kind: Literal["code", "markdown"]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """As the format has it."""
        lines = self.text.strip("\n").splitlines(keepends=True)
        plain = {"cell_type": self.kind, "id": self.name, "metadata": {}, "source": lines}
        return plain | ({"execution_count": None, "outputs": []} if self.kind == "code" else {})


def notebook_text(cells: Sequence[Cell]) -> str:
    """A Python notebook as the text of its file; on Kaggle it has a GPU and no internet."""
    kaggle = {"accelerator": "gpu", "isGpuEnabled": True, "isInternetEnabled": False}
    notebook = {
        "cells": [cell.to_dict() for cell in cells],
        "metadata": {
            "kaggle": kaggle | {"language": "python", "sourceType": "notebook"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"

"""The site: `make docs` builds it into build/docs. Pages link as they do on a code host; what differs is here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from docutils import nodes

import cellflow

ROOT = Path(__file__).resolve().parents[1]
WHOLE = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages that are a file of the root, of which a code host shows the file itself."""
PAGES = {"README.md": "index.md"} | {file: f"{page}.md" for page, file in WHOLE.items()}

project = "cellflow"
author = copyright = "the cellflow authors"
release = version = cellflow.__version__
html_title = f"cellflow {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 4
default_role = "code"
highlight_language = "none"

autodoc_default_options = {
    "members": True,
    "inherited-members": True,
    "exclude-members": "problems",
    "member-order": "bysource",
}
autodoc_typehints = "none"  # docstrings say types, shapes and units
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def whole_file(app: Any, page: str, source: list[str]) -> None:
    """Put the file of the root in the place of a page that only points to it, and mend links to such files."""
    if page in WHOLE:
        app.env.note_dependency(str(ROOT / WHOLE[page]))
        text = (ROOT / WHOLE[page]).read_text(encoding="utf-8")
        source[0] = re.sub(r"\]\(docs/", "](", text)
    for file, target in PAGES.items():
        source[0] = re.sub(rf"\]\((\.\./)?{file}\b", f"]({target}", source[0])


def short_signature(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Settings are listed below with what they are, so that they need not all stand in the first line."""
    settings = what == "class" and dataclasses.is_dataclass(value) and name.endswith("Config")
    return ("(...)", "") if settings or name.endswith("MaskOverrides") else None


class Settings:
    """The words of a setting as they are: napoleon would take what stands before a colon for its type."""

    def keep(self, app: Any, what: str, name: str, value: Any, options: Any, lines: Any) -> None:
        """Before napoleon."""
        self.lines = list(lines)

    def put_back(
        self, app: Any, what: str, name: str, value: Any, options: Any, lines: Any
    ) -> None:
        """After it; flags are code, in which two hyphens stay two."""
        if what == "attribute":
            lines[:] = [re.sub(r"(?<![\w`-])(--\w+)", r"``\1``", line) for line in self.lines]


def plain_paths(app: Any, tree: nodes.document) -> None:
    """A default that is a path is one on every system."""
    for text in list(tree.findall(nodes.Text)):
        if "PosixPath(" in text:
            text.parent.replace(text, nodes.Text(text.replace("PosixPath(", "Path(")))


def setup(app: Any) -> None:
    """Connect them."""
    app.connect("doctree-read", plain_paths)
    settings = Settings()
    app.connect("autodoc-process-docstring", settings.keep, priority=400)
    app.connect("autodoc-process-docstring", settings.put_back, priority=600)
    app.connect("source-read", whole_file)
    app.connect("autodoc-process-signature", short_signature)

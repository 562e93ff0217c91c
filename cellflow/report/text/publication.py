"""What goes, or went, to Kaggle, as `cellflow publish` prints it."""

from __future__ import annotations

from typing import Any

from cellflow.storage.sizes import size_text

__all__ = ["publication_text"]


def publication_text(publication: Any) -> str:
    """A `Publication`: its name, where it is, and every file with its size."""
    sizes = [f"  {size_text(size):>9}  {name}" for name, size in publication.files]
    seen = "public" if publication.public else "private"
    where = publication.url or publication.reference
    version = f", version {publication.version}" if publication.version else ""
    done = "Published" if publication.url else "Would be published"
    head = (
        f"{done}: {publication.title!r}, {seen}, {where}{version}, {size_text(publication.total)}"
    )
    return "\n".join([head, *sizes])

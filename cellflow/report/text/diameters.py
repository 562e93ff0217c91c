"""Which diameters are used and why, as `cellflow oof` and `cellflow calibrate` say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["diameters_text"]


def diameters_text(choice: Mapping[str, Any]) -> str:
    """The kept diameter policy, every comparison that led to it, and images whose type was not believed.

    Parameters
    ----------
    choice : mapping
        What ``oof.json`` says under ``diameters``.
    """
    scores = ", ".join(f"{name} {score:.4f}" for name, score in choice["scores"].items())
    lines = [f"diameters by policy {choice['policy']} (out-of-fold score: {scores})"]
    for item in choice["comparisons"]:
        lines.append(f"  {item['policy']:7} {_gain_text(item)}")
    factor, own = choice.get("type_factor"), choice.get("own_estimates")
    if factor is not None:
        lines.append(
            f"  an image's own estimate counts where its type is unsure, or its estimate more than {factor:.3g} "
            f"times off the type's diameter: {own} of {choice['images']} images"
        )
    return "\n".join(lines)


def _gain_text(item: Mapping[str, Any]) -> str:
    gain = f"{item['gain']:+.4f} over {item['over']}"
    if item["low"] is None:
        return f"{gain}, of one group of images, which tells no error: {item['over']} stays"
    between = f"{gain} ({item['low']:+.4f} to {item['high']:+.4f}, {item['groups']} groups)"
    if item["taken"]:
        return f"{between}: kept"
    why = "less than its error" if item["gain"] > 0 else "no gain"
    if item["low"] > 0:
        why = "too little to matter"
    return f"{between}: {why}, {item['over']} stays"

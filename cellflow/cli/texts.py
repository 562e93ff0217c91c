"""What commands print, as text."""

from __future__ import annotations

from typing import Any

from cellflow.storage.sizes import duration_text, plural, size_text

__all__ = [
    "plan_text",
    "prediction_plan_text",
    "prediction_text",
    "publication_text",
    "thresholds_text",
]


def plan_text(plan: Any) -> str:
    """A training plan as lines of text."""
    steps, total = plan.steps_per_epoch * plan.epochs, plan.fold_seconds * len(plan.folds)
    folds = ", ".join(map(str, plan.folds))
    lines = {
        "folds": f"{folds}; in fold {plan.folds[0]}, {plan.training} images train, "
        f"{plan.validation} validate",
        "length": f"{plan.epochs} epochs of {plan.steps_per_epoch} steps: {steps} steps and "
        f"{plan.evaluations} evaluations a fold",
        "machine": plan.machine.replace("amp None", "float32"),
        "step": f"{plan.step_seconds:.2f} s with {plan.crop_seconds:.3f} s of processor time for crops",
        "evaluation": f"{duration_text(plan.evaluation_seconds)}",
        "memory": f"{plan.memory_bytes / 2**30:.1f} GiB at most",
        "disk": f"{(plan.state_bytes * len(plan.folds)) / 2**20:.0f} MiB of states",
        "time": f"{duration_text(plan.fold_seconds)} a fold, {duration_text(total)} one after the other",
        "picture": str(plan.picture),
    }
    return "\n".join(f"{name:11}{text}" for name, text in lines.items())


def thresholds_text(thresholds: Any) -> str:
    """Thresholds with their source and what they gain, as lines of text."""
    from cellflow.engine.runs.thresholds import ALL_TYPES, describe

    lines = [f"thresholds from {thresholds.source}:"]
    for name, mask in {ALL_TYPES: thresholds.shared, **thresholds.per_type}.items():
        scores = thresholds.facts["scores"][name]
        found = scores["cross_fitted"]
        after = (
            "-> one group, not cross-fitted" if found is None else f"-> {found:.4f} cross-fitted"
        )
        lines.append(f"  {name:12} {describe(mask)}")
        lines.append(
            f"  {'':12} score {scores['training_thresholds']:.4f} {after}, {scores['images']} images"
        )
    return "\n".join(lines)


def prediction_plan_text(plan: Any) -> str:
    """A plan of a prediction as lines of text."""
    lines = {
        "images": f"{plan.images}, {plan.done} of them done",
        "members": f"{plural(plan.members, 'network')}, {plural(plan.views, 'view')} each",
        "thresholds": plan.thresholds,
        "machine": plan.machine.replace("amp None", "float32"),
        "an image": f"{plan.seconds_per_image:.2f} s, measured on the first ones",
        "time": f"{duration_text(plan.seconds)} for those that are left",
        "results": str(plan.folder),
    }
    return "\n".join(f"{name:11}{text}" for name, text in lines.items())


def prediction_text(result: Any) -> str:
    """What a prediction found, what of it lies where, and how to look at it."""
    members = "" if result.members == 1 else f", mean flow of {result.members} models"
    lines = [
        f"{plural(sum(result.cells.values()), 'cell')} in {plural(len(result.cells), 'image')}{members}",
        f"Written: {result.folder}: {', '.join(result.written)}",
    ]
    shown = max(result.cells, key=lambda name: result.cells[name], default="")
    mask, outline = result.masks / f"{shown}.tif", result.folder / "outlines" / f"{shown}.png"
    if outline.is_file():
        lines.append(f"Open: {outline}")
    elif mask.is_file():
        lines.append(f"Open: napari --layer-type labels {mask}, or drag it onto Fiji")
    return "\n".join(lines)


def publication_text(publication: Any) -> str:
    """What goes, or went, to Kaggle, as lines of text."""
    sizes = [f"  {size_text(size):>9}  {name}" for name, size in publication.files]
    seen = "public" if publication.public else "private"
    where = publication.url or publication.reference
    version = f", version {publication.version}" if publication.version else ""
    done = "Published" if publication.url else "Would be published"
    head = (
        f"{done}: {publication.title!r}, {seen}, {where}{version}, {size_text(publication.total)}"
    )
    return "\n".join([head, *sizes])

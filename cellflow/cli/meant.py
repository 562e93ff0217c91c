"""What somebody meant who typed a command or a flag of another program, or made a slip."""

from __future__ import annotations

from collections.abc import Sequence

from cellflow.cli.commands import COMMANDS
from cellflow.config.also_called import also_called
from cellflow.config.layers import Setting, close_to, settings_of

__all__ = ["flags_of", "unknown_command", "unknown_flag"]

_COMMANDS = {
    "predict": "segment eval evaluate_images infer inference test detect apply cellpose",
    "train": "fit finetune fine-tune fine_tune retrain",
    "folds": "split splits kfold k-fold cv cross-validation crossval fold",
    "oof": "val validate validation out-of-fold find_best_configuration",
    "score": "evaluate eval_masks metrics metric",
    "verify": "validate_data integrity verify_dataset_integrity lint inspect sanity dedup duplicates",
    "eda": "explore look explore_data first_look stats statistics describe summary histogram",
    "prepare": "convert import preprocess plan_and_preprocess dataset data init",
    "audit": "label_audit label-errors mislabeled review cleanlab",
    "calibrate": "tune thresholds calibration optimize",
    "runs": "list ls experiments status history",
    "prune": "clean delete rm remove",
    "publish": "upload push submit",
    "checks": "check doctor info env environment settings",
    "queue": "batch grid sweep",
    "compare": "diff",
    "report": "page html plot plots results show view dashboard tensorboard",
    "pseudo": "pseudo-label pseudolabel pseudo_labels self-training label autolabel",
    "distil": "distill distillation knowledge-distillation compress student soup merge",
    "suggest": "active active-learning next select-images annotate-next propose recommend",
}
"""Commands, with what others call them."""

_ARGUMENTS = {
    "run": "run runs r name exp experiment experiment_name model pretrained_model load",
    "source": "source src input i data dir path folder dataset images img_dir train_dir",
    "images": "images image input i data dir path folder source img_dir image_path img_path",
    "data": "data dataset d i dir path folder source",
    "pred": "pred preds prediction predictions masks pred_dir",
    "file": "file f config c cfg experiments",
}
"""Arguments, which have no flag, with the flags that people give them."""

_NOTES = {
    "train": "the command is: cellflow train",
    "test_dir": "cellflow splits one dataset itself, see cellflow folds",
    "do_3D do_3d stitch_threshold anisotropy dP_smooth": "cellflow works in two dimensions",
    "resume c continue_training": "the same command again goes on where it stopped",
    "verbose v": "cellflow says what it does as it is; log.txt in the run keeps it",
    "no_npy no_masks no_cells no_submission no_outlines":
        "--export names all that is written",
    "no_norm norm_percentile normalize": "images are always brought to their percentiles 1 and 99",
    "snapshots snapshot swa": "states of one training gain nothing over the moving average of its weights, --ema",
    "transformer": "the network is Cellpose 3's U-Net",
    "exclude_on_edges": "cells at the border are kept",
}  # fmt: skip
"""What has no flag here, and why."""


def flags_of(cls: type) -> dict[str, Setting]:
    """Settings of a config that have a flag, by its name."""
    return {
        name: item
        for name, item in settings_of(cls).items()
        if not (item.positional or hasattr(item.hint, "__dataclass_fields__"))
    }


def unknown_command(words: Sequence[str]) -> str:
    """What to say of words that do not begin with a command."""
    word, rest = words[0], list(words[1:])
    there = f"There are: {', '.join(COMMANDS)}. Try: cellflow --help"
    if word.startswith("-"):
        command = next((name for name in COMMANDS if f"--{name}" in words), None)
        if command is None and {"--dir", "--image_path", "--pretrained_model"} & set(words):
            command = "predict"
        hint = f"; did you mean: cellflow {command}?" if command else "."
        there_too = next((name for name in rest if name in COMMANDS), None)
        if command is None and there_too:
            others = [other for other in words if other != there_too]
            hint = f"; did you mean: cellflow {' '.join([there_too, *others])}?"
        return f"the command comes first: cellflow COMMAND [OPTIONS], found {word}{hint} {there}"
    plain = word.lower().replace("-", "_")
    meant = next(
        (name for name, others in _COMMANDS.items() if plain in others.replace("-", "_").split()),
        None,
    )
    name = close_to(word, list(COMMANDS)) or meant
    hint = f"; did you mean: {' '.join(['cellflow', name, *rest])}?" if name else "."
    return f"no command {word!r}{hint} {there}"


def unknown_flag(command: str, flag: str, value: str) -> str:
    """What to say of a flag that a command does not have.

    Parameters
    ----------
    command : str
        The command.
    flag : str
        As it was typed, with its hyphens.
    value : str
        What was typed after it; empty for nothing.
    """
    plain = flag.lstrip("-").replace("-", "_")
    own = [*flags_of(COMMANDS[command].config), "config"]
    said = f"{flag}: {command} has no such flag"
    argument = _argument(command, plain)
    if argument and value:
        return f"{said}; did you mean: cellflow {command} {value}?"
    if plain == "folds" and value == "all" and "fold" in own:
        return f"{said}; did you mean --fold all?"
    meant = also_called(plain)
    for text in (plain, *meant) if flag != f"--{plain}" else meant:
        if text.split()[0] in own:
            return f"{said}; did you mean {_typed(text, value)}?"
    for words, note in _NOTES.items():
        if plain in words.split():
            return f"{said}: {note}"
    for text in (plain, *meant):
        others = [
            name
            for name, item in COMMANDS.items()
            if text.split()[0] in flags_of(item.config) and name != "demo"
        ]
        if others:
            return f"{said}; {_typed(text, value)} is for cellflow {' or '.join(others[:3])}"
    near = close_to(plain, own)
    if near:
        return f"{said}; did you mean {_typed(near, value)}?"
    alike = [f"--{name}" for name in own if name.split("_")[0] == plain.split("_")[0]]
    return f"{said}; there are {', '.join(alike)}" if alike else said


def _argument(command: str, plain: str) -> bool:
    """Whether a flag is what people call an argument of the command."""
    names = {
        n.removesuffix("s")
        for n, item in settings_of(COMMANDS[command].config).items()
        if item.positional
    }
    return any(
        plain in others.split() and name.removesuffix("s") in names
        for name, others in _ARGUMENTS.items()
    )


def _typed(text: str, value: str) -> str:
    """A flag as it would be typed, with the value that was given to the other."""
    takes = " " not in text and value and _hint(text) is not bool
    return f"--{text} {value}" if takes else f"--{text}"


def _hint(name: str) -> object:
    """Type of a flag in whichever command has it."""
    found = (flags_of(command.config).get(name) for command in COMMANDS.values())
    return next((item.hint for item in found if item is not None), None)

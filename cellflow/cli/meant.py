"""What somebody meant who typed a command or a flag of another program, or made a slip."""

from __future__ import annotations

from collections.abc import Sequence

from cellflow.cli.commands import COMMANDS
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

_FLAGS = {
    "learning_rate": "lr lr0 initial_lr init_lr rate base_lr",
    "n_epochs": "epochs epoch num_epochs nepochs max_epochs n_epoch",
    "batch_size": "bs batch batchsize batches train_batch_size",
    "weight_decay": "wd decay l2",
    "k": "folds n_folds num_folds nfolds kfold kfolds k_folds n_splits splits",
    "device": "gpu_device dev",
    "device cuda": "gpu use_gpu gpus cuda use_cuda",
    "device mps": "mps use_mps",
    "device cpu": "cpu no_gpu",
    "amp off": "no_amp fp32 float32 no_bfloat16 use_bfloat16",
    "amp float16": "half fp16 mixed_precision",
    "pretrained_model": "pretrained model_type model weights checkpoint ckpt pretrained_weights add_model init_weights "
    "backbone",
    "model": "pretrained_model pretrained model_type weights checkpoint ckpt run load add_model",
    "data": "img_dir train_dir image_dir images_dir image_folder dataset data_dir data_path train_data folder input "
    "input_dir path image_path i",
    "out": "o output output_dir out_dir outdir output_folder save_dir dest",
    "savedir": "save_dir save_path output output_dir out outdir model_dir",
    "runs_dir": "project results_dir log_dir logdir run_dir",
    "name": "model_name_out run_name experiment exp exp_name model_name run",
    "optimizer": "optim opt solver",
    "optimizer adamw": "adamw adam",
    "optimizer sgd": "SGD sgd",
    "bsize": "imgsz img_size image_size crop_size patch_size tile_size crop size tile",
    "nimg_per_epoch": "steps_per_epoch iters_per_epoch images_per_epoch",
    "eval_every": "save_every val_every eval_interval val_interval save_period check_val_every_n_epoch validate_every",
    "schedule": "lr_scheduler lr_schedule cos_lr",
    "scheduler": "cluster dask dask_scheduler dask_address scheduler_address",
    "scheduler slurm": "slurm use_slurm",
    "warmup": "warmup_epochs warmup_steps",
    "patience": "early_stopping early_stop",
    "clip_grad": "grad_clip gradient_clip gradient_clip_val clip",
    "workers": "num_workers n_workers j jobs num_proc",
    "threads": "num_threads n_threads",
    "time_budget": "max_time time_limit budget timeout hours",
    "diameter": "diam d cell_diameter mean_diameter",
    "diameter_rounds": "rounds iterate estimate auto_diameter",
    "diam_mean": "diameter diam mean_diameter",
    "cellprob_threshold": "cellprob mask_threshold prob_threshold conf threshold prob_thresh",
    "flow_threshold": "flow flow_thresh",
    "min_size": "min_cell_size min_area minimum_size",
    "niter": "iterations n_iter",
    "chan": "channel channels seg_channel chan1",
    "chan2": "nuclei_channel nuclear_channel",
    "tta": "test_time_augmentation mirroring",
    "fold": "f f_val validation_fold val_fold trn_fold",
    "group": "group_column groups group_by group_col",
    "stratify": "stratify_by strata label_column",
    "holdout": "val_split test_size validation_split test_split val_size valid_pct",
    "seed": "random_state random_seed rng",
    "overwrite": "force f exist_ok replace",
    "split": "split_parts split_labels connected_components",
    "colours": "colors color colour",
    "masks": "mask_dir masks_dir label_dir labels labels_dir mask_folder",
    "table": "csv metadata meta annotations df",
    "debug": "fast_dev_run smoke quick",
    "yes": "y force",
    "wandb": "use_wandb log_wandb",
    "comment": "note notes message m description",
    "dry_run": "plan n dryrun",
    "export png": "save_png",
    "export seg": "save_npy save_seg",
    "export flows": "save_flows",
    "export roi": "save_rois",
    "export txt": "save_txt",
    "outlines": "save_outlines plot draw show",
    "export outlines": "outlines save_outlines plot draw show",
    "export masks": "save_tif save_masks",
    "export coco": "save_json save_coco coco",
    "config": "c cfg config_file yaml settings hparams",
}
"""Flags of ours, some with a value, with what Cellpose 2 to 4, nnU-Net, Ultralytics and others call them."""

_NOTES = {
    "train": "the command is: cellflow train",
    "test_dir": "cellflow splits one dataset itself, see cellflow folds",
    "do_3D do_3d stitch_threshold anisotropy dP_smooth": "cellflow works in two dimensions",
    "resume c continue_training": "the same command again goes on where it stopped",
    "verbose v": "cellflow says what it does as it is; log.txt in the run keeps it",
    "img_filter": "give a folder with just these images; --mask_filter of cellflow prepare tells masks beside them",
    "no_npy no_masks no_cells no_submission no_outlines":
        "--export names all that is written",
    "no_norm norm_percentile normalize": "images are always brought to their percentiles 1 and 99",
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
    if plain == "folds" and value == "all" and "fold" in own:
        return f"{said}; did you mean --fold all?"
    meant = _meant(plain)
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


def _meant(plain: str) -> list[str]:
    """Flags of ours, some with a value, that another program calls so."""
    return [ours for ours, others in _FLAGS.items() if plain in others.split()]


def _typed(text: str, value: str) -> str:
    """A flag as it would be typed, with the value that was given to the other."""
    takes = " " not in text and value and _hint(text) is not bool
    return f"--{text} {value}" if takes else f"--{text}"


def _hint(name: str) -> object:
    """Type of a flag in whichever command has it."""
    found = (flags_of(command.config).get(name) for command in COMMANDS.values())
    return next((item.hint for item in found if item is not None), None)

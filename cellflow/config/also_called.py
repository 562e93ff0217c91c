"""Settings by the names that other programs give them."""

from __future__ import annotations

__all__ = ["also_called"]

_SETTINGS = {
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
    "category": "categories class classes class_name cls",
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
"""Settings of ours, some with a value, with what Cellpose 2 to 4, nnU-Net, Ultralytics and others call them."""


def also_called(name: str) -> list[str]:
    """Settings of ours that another program calls so, as `learning_rate` for `lr`; with a value, `device cuda`.

    Parameters
    ----------
    name : str
        Without hyphens in front, with underscores inside.
    """
    return [ours for ours, others in _SETTINGS.items() if name in others.split()]

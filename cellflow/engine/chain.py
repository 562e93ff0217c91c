"""The whole chain for one experiment."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass

from cellflow.config import (
    CalibrateConfig,
    ChainConfig,
    EnsembleConfig,
    FoldsConfig,
    InferenceConfig,
    OofConfig,
    OutputConfig,
    check_config,
)
from cellflow.engine.calibrate import CalibrationResult, calibrate
from cellflow.engine.ensemble import EnsembleResult, ensemble
from cellflow.engine.fold_trainer import FoldResult
from cellflow.engine.folds import make_folds
from cellflow.engine.oof import oof
from cellflow.engine.runs import run_mask
from cellflow.engine.train import train
from cellflow.io.dataset import Dataset
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

__all__ = ["ChainResult", "run_chain"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ChainResult:
    """What a chain gave; what comes after a training that ran out of time is None.

    Attributes
    ----------
    folds : list of FoldResult
        Of the training.
    calibration : CalibrationResult or None
        Thresholds and cross-validation.
    ensemble : EnsembleResult or None
        Where images were given.
    """

    folds: list[FoldResult]
    calibration: CalibrationResult | None = None
    ensemble: EnsembleResult | None = None


def run_chain(config: ChainConfig) -> ChainResult:
    """Folds, training of all of them, out-of-fold predictions, calibration, ensemble.

    The same call again goes on: folds that are there are kept, finished trainings skipped, out-of-fold
    predictions of the same models kept, and the ensemble goes on image by image.

    Raises
    ------
    CellflowError
        What the steps raise.
    """
    check_config(config)
    training = config.train
    dataset = Dataset.open(training.data)
    if not dataset.folds_path.exists():
        make_folds(
            FoldsConfig(
                data=training.data,
                k=config.k,
                group=config.group,
                calibration=config.calibration,
                seed=training.seed,
            )
        )
    folds = train(training)
    if not all(item.finished for item in folds):
        _log.info("time is up; the same command goes on")
        return ChainResult(folds)
    run = RunFolder(training.runs_dir / training.name)
    if not _is_predicted(run, config):
        oof(
            OofConfig(
                run=str(run.path),
                data=training.data,
                policy=config.policy,
                batch_size=training.optim.batch_size,
                runtime=training.runtime,
            )
        )
    calibration = calibrate(
        CalibrateConfig(
            runs=(str(run.path),),
            data=training.data,
            ensembles_dir=config.ensembles_dir,
            seed=training.seed,
            runtime=training.runtime,
        )
    )
    if config.images is None:
        return ChainResult(folds, calibration)
    result = ensemble(
        EnsembleConfig(
            images=config.images,
            runs=(str(run.path),),
            ensembles_dir=config.ensembles_dir,
            output=OutputConfig(out=config.predictions_dir),
            inference=InferenceConfig(tta=config.tta, batch_size=training.optim.batch_size),
            runtime=training.runtime,
        )
    )
    return ChainResult(folds, calibration, result)


def _is_predicted(run: RunFolder, config: ChainConfig) -> bool:
    """Whether the out-of-fold pass is there, made by these models with these settings."""
    try:
        record = json.loads(run.oof_record.read_text(encoding="utf-8"))
        models = {str(fold): hash_file(run.fold(fold).best) for fold in run.read_record()["folds"]}
        same = record["models"] == models and record["mask"] == dataclasses.asdict(run_mask(run))
        return bool(
            same
            and record["diameter"] is None
            and (len(record["policies"]) > 1 or config.policy == record["policy"])
            and config.policy in ("auto", record["policy"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False

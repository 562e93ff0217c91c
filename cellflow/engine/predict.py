"""Segment images with one run or model file."""

from __future__ import annotations

from cellflow.config import EnsembleConfig, PredictConfig, check_config
from cellflow.engine.ensemble import EnsembleResult, PredictionPlan, ensemble, plan_ensemble

__all__ = ["plan_prediction", "predict"]


def predict(config: PredictConfig) -> EnsembleResult:
    """Segment images with all folds of a run, or with one model file.

    The run's diameter policy, cell types and calibrated thresholds are applied without being asked for.

    Raises
    ------
    RunError, DataError, CheckpointError
        If there is no such model or image, or a run is incomplete.
    """
    check_config(config)
    return ensemble(_as_ensemble(config))


def plan_prediction(config: PredictConfig) -> PredictionPlan:
    """Measure what `predict` would take; nothing is written."""
    check_config(config)
    return plan_ensemble(_as_ensemble(config))


def _as_ensemble(config: PredictConfig) -> EnsembleConfig:
    """An ensemble of the one thing that was named."""
    return EnsembleConfig(
        images=config.images,
        files=config.files,
        runs=(config.model,) if config.model else (),
        runs_dir=config.runs_dir,
        ensembles_dir=config.ensembles_dir,
        calibrated=config.calibrated,
        unfinished=config.unfinished,
        output=config.output,
        inference=config.inference,
        mask=config.mask,
        runtime=config.runtime,
    )

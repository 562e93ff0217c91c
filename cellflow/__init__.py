"""K-fold training, honest cross-validation and flow-averaged ensembles for Cellpose's U-Net.

Names are loaded when they are first used, so that ``import cellflow`` costs neither torch nor numba
nor pandas.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036 - a source folder; pip refuses by itself
    found = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise ImportError(f"cellflow needs Python 3.11 or newer, found {found} ({sys.executable}).")

_HOME = {
    "AuditConfig": "config",
    "CalibrateConfig": "config",
    "ChainConfig": "config",
    "ChecksConfig": "config",
    "CompareConfig": "config",
    "DemoConfig": "config",
    "DistilConfig": "config",
    "EdaConfig": "config",
    "EnsembleConfig": "config",
    "FoldsConfig": "config",
    "GridConfig": "config",
    "InferenceConfig": "config",
    "MaskConfig": "config",
    "MaskOverrides": "config",
    "ModelConfig": "config",
    "ModelExportConfig": "config",
    "NotebookConfig": "config",
    "OofConfig": "config",
    "OptimConfig": "config",
    "OutputConfig": "config",
    "SlidesConfig": "config",
    "PredictConfig": "config",
    "PrepareConfig": "config",
    "PruneConfig": "config",
    "PseudoConfig": "config",
    "PublishConfig": "config",
    "QueueConfig": "config",
    "ReportConfig": "config",
    "RunsConfig": "config",
    "RuntimeConfig": "config",
    "SamplingConfig": "config",
    "ScoreConfig": "config",
    "SuggestConfig": "config",
    "TrackingConfig": "config",
    "TrainConfig": "config",
    "VerifyConfig": "config",
    "CellflowError": "errors",
    "Instances": "types",
    "Score": "types",
    "FLOW_SCALE": "numeric.dynamics",
    "flows_to_labels": "numeric.dynamics",
    "labels_to_flows": "numeric.targets",
    "average_flows": "numeric.averaging",
    "rle_decode": "numeric.rle",
    "rle_encode": "numeric.rle",
    "average_precision": "numeric.score",
    "competition_score": "numeric.score",
    "audit": "engine.validation.audit",
    "calibrate": "engine.validation.calibrate",
    "compare_runs": "engine.validation.compare_runs",
    "demo": "engine.experiments.demo",
    "distil": "engine.experiments.distil",
    "eda": "engine.pages.eda",
    "ensemble": "engine.prediction.ensemble",
    "export_model": "engine.model_exports.export_model",
    "list_runs": "engine.runs.catalog",
    "load_model": "engine.segmentation.loaded_model",
    "make_folds": "engine.data.make_folds",
    "Model": "engine.segmentation.loaded_model",
    "oof": "engine.validation.oof",
    "plan_prune": "engine.runs.prune",
    "predict": "engine.prediction.ensemble",
    "Prediction": "engine.segmentation.result",
    "prepare": "engine.data.prepare",
    "prune": "engine.runs.prune",
    "pseudo": "engine.prediction.pseudo",
    "publish": "engine.publishing.publish",
    "run_chain": "engine.experiments.chain",
    "run_checks": "engine.runtime.machine_checks",
    "run_queue": "engine.experiments.queue",
    "score_masks": "engine.validation.score_masks",
    "segmentation_metrics": "numeric.metrics.segmentation",
    "suggest": "engine.prediction.suggest",
    "train": "engine.training.train",
    "verify": "engine.validation.verify",
    "write_notebook": "engine.publishing.notebook",
    "write_report": "engine.validation.report_runs",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cellflow' has no attribute {name!r}")
    value = getattr(import_module(f"cellflow.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

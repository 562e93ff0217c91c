"""Frozen dataclasses: the one source of truth for flags, defaults, help texts and what is saved.

Every field is a flag of the command line; its docstring is the help text. `problems` lists what does
not make sense, so that one error can report all of it.
"""

from cellflow.config.audit import AuditConfig
from cellflow.config.calibration import CalibrateConfig, GridConfig
from cellflow.config.catalog import CompareConfig, PruneConfig, RunsConfig
from cellflow.config.chain import ChainConfig
from cellflow.config.checks import check_config, chosen, config_differences, config_to_dict
from cellflow.config.data import FoldsConfig, PrepareConfig, ReadingConfig, VerifyConfig
from cellflow.config.host import ChecksConfig
from cellflow.config.model_export import ModelExportConfig
from cellflow.config.pages import EdaConfig
from cellflow.config.prediction import (
    DemoConfig,
    EnsembleConfig,
    FilesConfig,
    InferenceConfig,
    OofConfig,
    OutputConfig,
    PredictConfig,
    SlidesConfig,
)
from cellflow.config.publishing import NotebookConfig, PublishConfig
from cellflow.config.queue import QueueConfig
from cellflow.config.report import ReportConfig
from cellflow.config.scoring import ScoreConfig
from cellflow.config.shared import MaskConfig, MaskOverrides, RuntimeConfig
from cellflow.config.suggestion import SuggestConfig
from cellflow.config.teaching import DistilConfig, PseudoConfig
from cellflow.config.tracking import TrackingConfig
from cellflow.config.training import ModelConfig, OptimConfig, SamplingConfig, TrainConfig

__all__ = [
    "AuditConfig",
    "CalibrateConfig",
    "ChainConfig",
    "ChecksConfig",
    "CompareConfig",
    "DemoConfig",
    "DistilConfig",
    "EdaConfig",
    "EnsembleConfig",
    "FilesConfig",
    "FoldsConfig",
    "GridConfig",
    "InferenceConfig",
    "MaskConfig",
    "MaskOverrides",
    "ModelConfig",
    "ModelExportConfig",
    "NotebookConfig",
    "OofConfig",
    "OptimConfig",
    "OutputConfig",
    "PredictConfig",
    "PrepareConfig",
    "PruneConfig",
    "PseudoConfig",
    "PublishConfig",
    "QueueConfig",
    "ReadingConfig",
    "ReportConfig",
    "RunsConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "ScoreConfig",
    "SlidesConfig",
    "SuggestConfig",
    "TrackingConfig",
    "TrainConfig",
    "VerifyConfig",
    "check_config",
    "chosen",
    "config_differences",
    "config_to_dict",
]

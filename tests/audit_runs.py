"""A run whose out-of-fold predictions are those of a model that sees given cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.config import TrainConfig
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import write_labels
from cellflow.numeric.dynamics import FLOW_SCALE, flows_to_labels
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Seen:
    """The run, its data, and the folder of its runs."""

    run: RunFolder
    data: Dataset
    runs_dir: Path

    @property
    def words(self) -> list[str]:
        return [self.run.name, "--runs_dir", str(self.runs_dir)]


def seen_by_model(
    config: TrainConfig, changes: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None
) -> Seen:
    """Let the models of a run that was predicted see the annotations, but for changes by image."""
    run, data = RunFolder(config.runs_dir / config.name), Dataset.open(config.data)
    facts = {name: FlowStore(run.flows).facts(name) for name in data.ids}
    store = FlowStore(run.flows, mode="w")
    for name in data.ids:
        change: Any = (changes or {}).get(name, lambda labels: labels)
        labels = change(data.labels(name).copy()).astype(np.int32)
        flow = FLOW_SCALE * labels_to_flows(labels)
        cellprob = np.where(labels > 0, 5.0, -5.0).astype(np.float32)
        store.write(name, flow, cellprob, **facts[name])
        write_labels(run.oof / "masks" / f"{name}.tif", flows_to_labels(flow, cellprob))
    return Seen(run, data, config.runs_dir)

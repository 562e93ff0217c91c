from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fake_sheets, wandb_file

START: dict[str, Any] = {
    "experiment": "exp",
    "config": {"seed": 0, "optim": {"n_epochs": 3}, "model": {"pretrained_model": "models/cyto2"}},
    "training": 12,
    "validation": 4,
    "network": "cellpose CPnet",
    "host": {"environment": "kaggle", "cores": 4, "hostname": "anna-laptop"},
    "comment": "",
    "started": "2025-11-24T18:33:45+00:00",
}

METADATA: dict[str, Any] = {
    "format": "cellflow-metadata",
    "version": 1,
    "experiment": "exp",
    "status": "calibrated",
    "debug": False,
    "created": "2025-11-24T18:30:00+00:00",
    "updated": "2025-11-24T19:30:00+00:00",
    "comment": "",
    "environment": "kaggle",
    "host": None,
    "versions": {"cellflow": "0.1.0"},
    "data": {"path": "cellflow-data", "hash": "d1", "images": 16},
    "split": {"id": "s1", "folds": [0, 1]},
    "config": START["config"],
    "config_hash": "c1",
    "model": {
        "network": "cellpose CPnet",
        "chan": 0,
        "chan2": 0,
        "folds": [
            {"fold": 0, "file": "fold_0/best.pt", "hash": "h0", "score": 0.31, "epoch": 2.0,
             "epochs": 3.0, "finished": "epochs"},
            {"fold": 1, "file": "fold_1/best.pt", "hash": None, "score": None, "epoch": None,
             "epochs": None, "finished": ""},
        ],
    },
    "policy": "dataset",
    "cv": {
        "raw": 0.3123123, "post": 0.3301, "last_epoch": 0.3, "best_epoch": 0.3123123,
        "cross_fitted": 0.3301, "selection_bias": 0.01, "expected": 0.32, "low": 0.28, "high": 0.36,
        "per_fold": {"0": {"best_epoch": 0.3111, "cross_fitted": 0.3222}},
        "per_type": {"cort": {"best_epoch": 0.4}},
        "per_threshold": {"0.50": 0.6},
    },
    "thresholds": {
        "source": "oof",
        "all types": {"cellprob_threshold": 0.0, "flow_threshold": 0.4},
        "per_type": {"cort": {"cellprob_threshold": -0.5, "flow_threshold": 0.6}},
    },
    "ensembles": [],
    "trackers": {},
    "publication": None,
}  # fmt: skip


@pytest.fixture
def start() -> dict[str, Any]:
    return json.loads(json.dumps(START))


@pytest.fixture
def metadata() -> dict[str, Any]:
    return json.loads(json.dumps(METADATA))


@dataclass
class Hook:
    """A webhook that keeps what it is sent."""

    url: str
    texts: list[str] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def hook() -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.texts.append(json.loads(body).get("text", ""))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Hook(f"http://127.0.0.1:{server.server_address[1]}/services/T000/B000/s3cr3t-path")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()

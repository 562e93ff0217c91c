"""Read what wandb has recorded offline: a log in LevelDB's format, of protobuf records."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
HEADER = 7


@dataclass
class Recorded:
    """What one .wandb file says."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def recorded(folder: Path) -> list[Recorded]:
    """What each offline folder of a run holds, oldest first, once wandb has written all of it."""
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    for _ in range(1200):  # a minute, on a machine that does much else
        found = [read_wandb(path) for path in paths]
        if all(item.exit_code is not None for item in found):
            break
        time.sleep(0.05)
    return found


def read_wandb(path: Path) -> Recorded:
    from wandb.proto import wandb_internal_pb2

    found = Recorded()
    for data in chunks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= items(record.run.config.update)
        elif kind == "config":
            found.config |= items(record.config.update)
        elif kind == "history":
            found.rows.append(items(record.history.item))
        elif kind == "summary":
            found.summary |= items(record.summary.update)
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            found.artifacts.append(record.request.log_artifact.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def chunks(data: bytes) -> list[bytes]:
    """Records of the log."""
    assert data[:4] == b":W&B"
    place, found, part = HEADER, [], b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or its last part
            found.append(part)
            part = b""
    return found


def items(updates: Any) -> dict[str, Any]:
    """Values by their name; parts of nested names are joined by a dot."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in updates}

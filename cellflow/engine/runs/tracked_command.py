"""What a command on a run leaves behind besides its results: settings, host, metadata, trackers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from cellflow.config import TrackingConfig, TrainConfig
from cellflow.engine.runs.metadata import write_metadata
from cellflow.environment import detect_host, environment_record, take_snapshot
from cellflow.storage.atomic import remove_leftovers, write_json
from cellflow.storage.config_file import write_config_file
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import Trackers, open_trackers, reopen_trackers

__all__ = ["track_state", "tracked", "write_start"]

_inside: ContextVar[bool] = ContextVar("inside a tracked command", default=False)


def write_start(run: RunFolder, config: TrainConfig) -> None:
    """Keep the settings of a training, so that it can be run again, and the host it runs on."""
    write_config_file(run.settings("train"), "train", config)
    snapshot = take_snapshot(run.path)
    label = config.tracking.environment
    write_json(run.environment, environment_record(snapshot, detect_host(snapshot), label=label))


@contextmanager
def tracked(
    run: RunFolder,
    what: str,
    *,
    tracking: TrackingConfig | None = None,
    ensembles_dir: Path | None = None,
) -> Iterator[None]:
    """Write how a command on a run ends into metadata.json, and hand it to the trackers of the run's training.

    Commands may call each other: the outermost hands on the end or the failure, those inside only how far
    the run has come. An interruption is no failure: trackers get nothing of it. `what` names the command in the message
    about its failure, which the trackers of `tracking` get, by default those of the run's last training.
    """
    remove_leftovers(run.path)
    outermost = not _inside.get()
    token = _inside.set(True)
    try:
        yield
        track_state(run, finished=outermost, ensembles_dir=ensembles_dir)
    except Exception as error:
        if outermost:
            with _trackers(run, tracking) as trackers:
                trackers.fail(what, str(error) or type(error).__name__)
        raise
    finally:
        _inside.reset(token)


def track_state(
    run: RunFolder, *, finished: bool = False, ensembles_dir: Path | None = None
) -> None:
    """Write metadata.json anew and hand it to the trackers; `finished` where a command has come to its end."""
    metadata = write_metadata(run, ensembles_dir=ensembles_dir)
    with _trackers(run) as trackers:
        (trackers.finish if finished else trackers.update_run)(metadata)
    write_metadata(run, ensembles_dir=ensembles_dir)  # with the links that the trackers have now


def _trackers(run: RunFolder, tracking: TrackingConfig | None = None) -> Trackers:
    if tracking is None:
        return reopen_trackers(run.path, experiment=run.name)
    return open_trackers(tracking, run.path, experiment=run.name)

"""Where experiments are tracked: one adapter a file over one base class, `Tracker`.

The journal (`events.jsonl` in the run folder) is always written. Others join by `TrackingConfig`; one that
fails warns once and never stops a training.
"""

from cellflow.tracking.journal import read_journal
from cellflow.tracking.trackers import NO_TRACKERS, Trackers, open_trackers, reopen_trackers

__all__ = ["NO_TRACKERS", "Trackers", "open_trackers", "read_journal", "reopen_trackers"]

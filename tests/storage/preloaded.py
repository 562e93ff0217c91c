"""What processes that are killed find done: modules imported and kernels loaded, once for all of them."""

from __future__ import annotations

import numpy as np

import cellflow.engine.data.make_folds
import cellflow.engine.data.prepare
import cellflow.engine.validation.oof  # noqa: F401
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.mask_checks import map_facts

LABELS = np.eye(4, dtype=np.int32)
instances_from_labels(LABELS)
map_facts(LABELS)

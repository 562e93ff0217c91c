"""`cellflow verify`: images with their cells, a dataset, or a run."""

from __future__ import annotations

from cellflow.config import VerifyConfig, check_config
from cellflow.engine.data.findings import Verification
from cellflow.engine.data.verify_data import verify_data
from cellflow.storage.atomic import write_csv

__all__ = ["verify"]


def verify(config: VerifyConfig) -> Verification:
    """Read everything in a place once, and say what was found and what is wrong with it.

    Nothing is written but, where one is asked for, the table of all findings.

    Parameters
    ----------
    config : VerifyConfig
        The place: anything that `prepare` reads, a dataset folder, or a run by its folder or name.

    Returns
    -------
    Verification

    Raises
    ------
    DataError, RunError
        If nothing there can be read.
    """
    check_config(config)
    found = verify_data(config)
    if config.out is not None:
        write_csv(config.out, found.table)
    return found

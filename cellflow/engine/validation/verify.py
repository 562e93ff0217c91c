"""`cellflow verify`: images with their cells, a dataset, or a run."""

from __future__ import annotations

from pathlib import Path

from cellflow.config import VerifyConfig, check_config
from cellflow.config.data import in_what_is_read, lies_in
from cellflow.engine.data.findings import Verification
from cellflow.engine.data.verify_data import verify_data
from cellflow.engine.validation.verify_run import verify_run
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import is_dataset
from cellflow.io.pixel_limit import at_most
from cellflow.storage.atomic import write_csv
from cellflow.storage.nearby import nearby
from cellflow.storage.run_folder import RunFolder, find_run

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
    ConfigError
        If the table would lie in what is read.
    DataError, RunError
        If nothing there can be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from cellflow import verify, VerifyConfig
    >>> labels = np.zeros((20, 20), dtype=np.uint8)
    >>> labels[3:12, 3:12] = 1
    >>> labels[6:9, 6:9] = 0
    >>> with TemporaryDirectory() as name:
    ...     imsave(Path(name) / "a.png", np.arange(400, dtype=np.uint16).reshape(20, 20))
    ...     imsave(Path(name) / "a_masks.png", labels, check_contrast=False)
    ...     found = verify(VerifyConfig(Path(name)))
    >>> found.problems
    0
    >>> [(item.kind, item.id, item.cell) for item in found.findings]
    [('hollow', 'a', 1)]
    """
    check_config(config)
    with at_most(config.max_pixels):
        found = _verify(config)
    if config.out is not None:
        write_csv(config.out, found.table)
    return found


def _verify(config: VerifyConfig) -> Verification:
    place = config.source
    runs = (RunFolder(place), RunFolder(config.runs_dir / place))
    run = next((run for run in runs if run.stands_here()), None)
    if run is not None and not is_dataset(place):
        run = find_run(str(run.path), config.runs_dir)
        _check_out(config, run)
        return verify_run(run, config)
    if not place.exists() and not place.is_symlink():
        known = sorted(path.parent.name for path in config.runs_dir.glob("*/config.yaml"))
        raise DataError(
            f"{place}: expected a folder of annotated images, a dataset folder, or a run, found nothing there. "
            f"Runs in {config.runs_dir}: {', '.join(known) or 'none'}.{nearby(place)}",
            path=place,
            expected=known,
        )
    return verify_data(config)


def _check_out(config: VerifyConfig, run: RunFolder) -> None:
    """Refuse a table that would replace a file of the run or of its data."""
    data = config.data if config.data is not None else Path(run.read_record()["data"])
    for folder in (run.path, data):
        if config.out is not None and lies_in(config.out, folder):
            raise ConfigError(in_what_is_read(config.out), path=config.out)

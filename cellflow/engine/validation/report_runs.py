"""`cellflow report`: the page of a run, or of several side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cellflow.config import ReportConfig, check_config
from cellflow.engine.pages.run_page import write_run_page
from cellflow.engine.pages.watch_run import wait_for_run, watch_run
from cellflow.engine.validation.compare_page import write_compare_page
from cellflow.storage.run_folder import RunFolder, find_run, joined_name

__all__ = ["write_report"]


def write_report(config: ReportConfig) -> Path:
    """Write the page of a run, however far it has come, or of several runs side by side.

    Parameters
    ----------
    config : ReportConfig
        Settings.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError, RunError
        If a run is unknown, or of several one has a damaged record or tables, or is named twice.

    Examples
    --------
    Of the run ``runs/exp``, and of two runs that differ in their seed:

    >>> from cellflow import ReportConfig, write_report
    >>> write_report(ReportConfig(("exp",))).as_posix()
    'runs/exp/report.html'
    >>> write_report(ReportConfig(("exp", "second"))).as_posix()
    'runs/compare-exp-second.html'
    """
    check_config(config)
    names = config.runs or (None,)
    if config.watch:
        wait_for_run(names[0], config.runs_dir, config.interval)
    runs = [find_run(name, config.runs_dir, begun=False) for name in names]
    if len(runs) > 1:
        return write_compare_page(runs, _compare_path(config, runs), data=config.data)
    write = partial(_write, runs[0], config)
    return watch_run(runs[0], write, config.interval) if config.watch else write(None)


def _write(run: RunFolder, config: ReportConfig, refresh: float | None) -> Path:
    return write_run_page(
        run,
        config.out,
        data=config.data,
        ensembles_dir=config.ensembles_dir,
        predictions_dir=config.predictions_dir,
        refresh=refresh,
    )


def _compare_path(config: ReportConfig, runs: list[RunFolder]) -> Path:
    if config.out is not None:
        return config.out
    name = joined_name((run.path.resolve().name for run in runs), "-")
    return runs[0].path.parent / f"compare-{name}.html"

"""The commands: one config, one engine call, and what is printed of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellflow import config as configs
from cellflow.cli.console import fail, say
from cellflow.storage.sizes import few_text, plural

if TYPE_CHECKING:
    from cellflow.engine.prediction.ensemble import EnsembleResult

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True)
class Command:
    """One command: what it takes and what it does."""

    config: type[Any]
    run: Callable[[Any], None]
    again: str = "nothing half-written remains; the same command starts over"
    """What the same command does after an interruption."""


def _prepare(config: configs.PrepareConfig) -> None:
    from cellflow.engine.data.folds import group_column
    from cellflow.engine.data.prepare import folds_flags, prepare
    from cellflow.report.text.dataset import dataset_text

    dataset = prepare(config)
    group = group_column(dataset.images)
    say(f"{dataset.path}: {dataset_text(dataset.images, group)}")
    if dataset.folds_path.exists():  # those of the dataset that it was made of
        say(f"Next: cellflow train --fold all{_data_flag(config.out)}")
    else:
        say(f"Next: cellflow folds{folds_flags(dataset)}{_data_flag(config.out)}")


def _verify(config: configs.VerifyConfig) -> None:
    from cellflow.engine.validation.verify import verify
    from cellflow.report.text.verify import verification_text

    found = verify(config)
    say(verification_text(found))
    if config.out is not None:
        say(f"Written: {config.out}")
    if found.problems:
        fail("something is wrong, see above")


def _eda(config: configs.EdaConfig) -> None:
    from cellflow.engine.pages.eda import eda
    from cellflow.report.text.dataset import dataset_text
    from cellflow.report.text.eda import eda_text

    found = eda(config)
    say(dataset_text(found.dataset.images, found.group))
    say(eda_text(found.hints))
    say(f"Written: {config.page}")
    say(f"Next: {found.next}")


def _folds(config: configs.FoldsConfig) -> None:
    from cellflow.engine.data.make_folds import make_folds

    folds = make_folds(config)
    say(f"{len(folds)} images in {config.data / 'folds.csv'}")
    say("Next: cellflow train --fold all" + _data_flag(config.data))


def _train(config: configs.TrainConfig) -> None:
    if config.dry_run:
        from cellflow.engine.training.training_plan import plan_training
        from cellflow.report.text.training import training_plan_text

        say(training_plan_text(plan_training(config)))
        return
    from cellflow.engine.training.train import train

    _say_trained(config, train(config), "train folds with the same settings, --fold all")


def _say_trained(config: configs.TrainConfig, done: Sequence[Any], instead: str) -> None:
    """How a training ended, and what is next; `instead` says what has a score where a final network has none."""
    from cellflow.engine.runs.contents import vouching_run
    from cellflow.engine.runs.next_command import after_training, trained_run
    from cellflow.engine.runs.state import run_state
    from cellflow.report.text.training import final_training_text, training_text

    if config.is_final:
        vouching = vouching_run(trained_run(config))
        name = None if vouching is None else vouching.name
        complete = vouching is not None and run_state(vouching).complete
        say(final_training_text(done, name, complete=complete, instead=instead))
    else:
        say(training_text(done))
    say(after_training(config))


def _oof(config: configs.OofConfig) -> None:
    from cellflow.engine.runs.next_command import after_oof
    from cellflow.engine.validation.oof import oof
    from cellflow.report.text.cv import cv_text

    result = oof(config)
    say(cv_text(result.cv))
    say(f"Written: {result.run.cv}, {result.run.oof}")
    _print_pictures(result.outlines)
    if result.exports is not None:
        say(f"Exports: {result.exports} ({', '.join(config.export)})")
    _print_reports([] if result.report is None else [result.report])
    say(after_oof(result.run, config))


def _audit(config: configs.AuditConfig) -> None:
    from cellflow.engine.validation.audit import audit
    from cellflow.report.text.audit import audit_text

    result = audit(config)
    say(audit_text(result.counts, result.images, [result.page, result.table]))
    say(f"Next: open {result.page} in a browser, mark what is wrong, and download the list")


def _calibrate(config: configs.CalibrateConfig) -> None:
    from cellflow.engine.runs.next_command import after_calibration
    from cellflow.engine.validation.calibrate import calibrate
    from cellflow.report.text.thresholds import calibration_text

    result = calibrate(config)
    say(calibration_text(result))
    _print_reports(result.reports)
    say(after_calibration(result.runs, config))


def _ensemble(config: configs.EnsembleConfig) -> None:
    from cellflow.engine.prediction.ensemble import ensemble
    from cellflow.engine.prediction.prediction_plan import plan_ensemble
    from cellflow.report.text.prediction import prediction_plan_text

    if config.output.dry_run:
        say(prediction_plan_text(plan_ensemble(config)))
        return
    _print_prediction(ensemble(config))


def _predict(config: configs.PredictConfig) -> None:
    from cellflow.engine.prediction.ensemble import predict
    from cellflow.engine.prediction.prediction_plan import plan_prediction
    from cellflow.report.text.prediction import prediction_plan_text

    if config.output.dry_run:
        say(prediction_plan_text(plan_prediction(config)))
        return
    _print_prediction(predict(config))


def _suggest(config: configs.SuggestConfig) -> None:
    from cellflow.engine.prediction.suggest import suggest
    from cellflow.report.text.suggestion import suggestion_text

    result = suggest(config)
    say(suggestion_text(result))
    if result.failed:
        fail(f"{plural(len(result.failed), 'image')} could not be used, see above")


def _print_prediction(result: EnsembleResult) -> None:
    from cellflow.report.text.prediction import prediction_text

    say(prediction_text(result))
    _print_reports(result.reports)
    if result.failed:
        total = len(result.cells) + len(result.failed)
        fail(f"{len(result.failed)} of {total} images could not be used, see above")
    gaps = [name for name, slide in result.slides.items() if slide.failed]
    if gaps:
        fail(f"blocks are missing in {few_text(gaps)}, see above")


def _run(config: configs.ChainConfig) -> None:
    from cellflow.engine.experiments.chain import run_chain
    from cellflow.engine.runs.next_command import after_calibration
    from cellflow.report.text.publication import publication_text
    from cellflow.report.text.thresholds import calibration_text
    from cellflow.report.text.training import TIME_IS_UP

    result = run_chain(config)
    if result.calibration is None:
        say(TIME_IS_UP)
        return
    say(calibration_text(result.calibration))
    if result.publication is not None:
        say(publication_text(result.publication))
    if result.notebook is not None:
        say(f"Written: {result.notebook}")
    if result.ensemble is not None:
        _print_prediction(result.ensemble)
    else:
        _print_reports(result.calibration.reports)
        say(after_calibration(result.calibration.runs))


def _queue(config: configs.QueueConfig) -> None:
    from cellflow.engine.experiments.queue import run_queue
    from cellflow.report.text.queue import queue_text

    result = run_queue(config)
    say(queue_text(result.table))
    if result.failed and not config.dry_run:
        fail(f"failed: {', '.join(result.failed)}; the same command tries them again")


def _publish(config: configs.PublishConfig) -> None:
    from cellflow.engine.publishing.publish import plan_publication, publish
    from cellflow.report.text.publication import publication_text

    say(publication_text(plan_publication(config) if config.dry_run else publish(config)))


def _kaggle_notebook(config: configs.NotebookConfig) -> None:
    from cellflow.engine.publishing.notebook import write_notebook

    say(f"Written: {write_notebook(config)}")


def _pseudo(config: configs.PseudoConfig) -> None:
    from cellflow.engine.prediction.pseudo import pseudo
    from cellflow.report.text.pseudo import pseudo_text

    result = pseudo(config)
    say(pseudo_text(result))
    if result.failed:
        name, why = next(iter(result.failed.items()))
        fail(f"{plural(len(result.failed), 'image')} could not be used, such as {name}: {why}")


def _distil(config: configs.DistilConfig) -> None:
    from cellflow.engine.experiments.distil import distil

    result = distil(config)
    say(f"Targets: {result.targets}")
    _say_trained(result.training, result.folds, "teach each fold its own, without --final")
    if result.failed:
        name, why = next(iter(result.failed.items()))
        fail(f"{plural(len(result.failed), 'image')} could not be used, such as {name}: {why}")


def _export(config: configs.ModelExportConfig) -> None:
    from cellflow.engine.model_exports.export_model import export_model
    from cellflow.report.text.model_export import model_export_text

    say(model_export_text(export_model(config)))


def _runs(config: configs.RunsConfig) -> None:
    from cellflow.engine.runs.catalog import list_runs
    from cellflow.report.text.runs import runs_text

    say(runs_text(list_runs(config)))


def _report(config: configs.ReportConfig) -> None:
    from cellflow.engine.validation.report_runs import write_report

    say(f"Written: {write_report(config)}")


def _compare(config: configs.CompareConfig) -> None:
    from cellflow.engine.validation.compare_runs import compare_runs
    from cellflow.report.text.comparison import comparison_text

    say(comparison_text(compare_runs(config)))


def _prune(config: configs.PruneConfig) -> None:
    from cellflow.engine.runs.prune import plan_prune, prune
    from cellflow.report.text.prune import prune_text, removed_text

    plan = plan_prune(config)
    say(prune_text(plan.items, plan.kept, plan.remote))
    if not config.yes:
        say("Nothing was removed; --yes removes it.")
        return
    result = prune(plan)
    say(removed_text(result.bytes, result.kept, result.remote))


def _checks(config: configs.ChecksConfig) -> None:
    from cellflow.engine.runtime.machine_checks import run_checks
    from cellflow.report.text.checks import checks_text

    checks = run_checks(config)
    if config.report:
        from cellflow.engine.runtime.fault_report import fault_report

        say(fault_report(checks_text(checks.rows)))
    else:
        say(json.dumps(checks.to_dict(), indent=2) if config.json else checks_text(checks.rows))
    if not checks.ok:
        fail("something is not as it must be, see above")


def _score(config: configs.ScoreConfig) -> None:
    from cellflow.engine.validation.score_masks import score_masks
    from cellflow.report.text.score import score_text

    result = score_masks(config)
    say(score_text(result))
    if config.out is not None:
        say(f"Written: {config.out}")
    _print_pictures(result.outlines)


def _demo(config: configs.DemoConfig) -> None:
    from cellflow.engine.experiments.demo import demo
    from cellflow.report.text.demo import demo_text

    say(demo_text(demo(config)))


def _print_reports(pages: Iterable[Path]) -> None:
    for page in pages:
        say(f"Report: {page}")


def _print_pictures(sheet: Path | None) -> None:
    if sheet is not None:
        say(f"Pictures: {sheet.parent}, worst first; the worst on one sheet: {sheet}")


def _data_flag(path: Path) -> str:
    return "" if str(path) == "cellflow-data" else f" --data {shlex.quote(str(path))}"


_GOES_ON = "the same command goes on where it stopped"

COMMANDS = {
    "demo": Command(configs.DemoConfig, _demo),
    "prepare": Command(configs.PrepareConfig, _prepare),
    "verify": Command(configs.VerifyConfig, _verify),
    "eda": Command(configs.EdaConfig, _eda),
    "folds": Command(configs.FoldsConfig, _folds),
    "train": Command(configs.TrainConfig, _train, _GOES_ON),
    "oof": Command(configs.OofConfig, _oof),
    "audit": Command(configs.AuditConfig, _audit),
    "calibrate": Command(configs.CalibrateConfig, _calibrate),
    "ensemble": Command(configs.EnsembleConfig, _ensemble, _GOES_ON),
    "predict": Command(configs.PredictConfig, _predict, _GOES_ON),
    "run": Command(configs.ChainConfig, _run, _GOES_ON),
    "suggest": Command(configs.SuggestConfig, _suggest),
    "pseudo": Command(configs.PseudoConfig, _pseudo),
    "distil": Command(configs.DistilConfig, _distil, _GOES_ON),
    "score": Command(configs.ScoreConfig, _score),
    "queue": Command(configs.QueueConfig, _queue, _GOES_ON),
    "export": Command(configs.ModelExportConfig, _export),
    "runs": Command(configs.RunsConfig, _runs),
    "report": Command(configs.ReportConfig, _report),
    "compare": Command(configs.CompareConfig, _compare),
    "prune": Command(configs.PruneConfig, _prune),
    "publish": Command(configs.PublishConfig, _publish),
    "kaggle-notebook": Command(configs.NotebookConfig, _kaggle_notebook),
    "checks": Command(configs.ChecksConfig, _checks),
}

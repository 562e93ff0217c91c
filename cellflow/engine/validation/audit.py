"""`cellflow audit`: annotations that are probably wrong, by predictions of models that did not see them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellflow.config import AuditConfig, check_config
from cellflow.engine.runs.contents import run_dataset, run_folds, warn_of_old_masks
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import OofRecord, read_oof_record
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.validation.audit_page import write_page_of
from cellflow.errors import DataError, RunError
from cellflow.io.audit_list import (
    AuditRow,
    Decision,
    read_decisions,
    row_check,
    write_audit_list,
)
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import read_labels
from cellflow.numeric.audit_facts import AuditFacts, audit_facts
from cellflow.numeric.cell_faults import fill_holes
from cellflow.numeric.labels import compact, instances_from_labels
from cellflow.numeric.matching import match
from cellflow.numeric.rle import instances_from_rles, rles_from_instances
from cellflow.numeric.suspicion import Suspicion, suspect, usual_iou
from cellflow.report.text.audit import reason_text
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.types import Instances, one_line

__all__ = ["AuditResult", "audit"]

_log = logging.getLogger(__name__)
SAME = 0.5
"""A predicted cell that has this IoU with one that was decided on is that cell again."""


@one_line
@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes
    ----------
    run : RunFolder
        The run.
    rows : tuple of AuditRow
        Suspicions, the strongest first.
    images : int
        Images that were looked at.
    page, table : Path
        ``audit.html`` and ``audit.csv``.
    flows : bool
        Whether there were flows to tell how sure the models are.
    decided : int
        Suspicions that were left out because somebody has decided on them.
    """

    run: RunFolder
    rows: tuple[AuditRow, ...]
    images: int
    page: Path
    table: Path
    flows: bool
    decided: int

    @property
    def counts(self) -> dict[str, int]:
        """Suspicions of each kind."""
        return dict(Counter(row.kind for row in self.rows))


def audit(config: AuditConfig) -> AuditResult:
    """Rank the annotations of a run's dataset by how probably they are wrong.

    Each image is judged by the model that did not see it, from the out-of-fold masks and, where they are
    there, flows. Writes ``audit.html``, a page to look at the suspicions and mark them, and ``audit.csv``, which
    holds all of them and can be marked as well; ``cellflow prepare DATA --audit LIST`` applies the marks.

    Parameters
    ----------
    config : AuditConfig

    Returns
    -------
    AuditResult

    Raises
    ------
    RunError, DataError
        If the run has no out-of-fold masks, or they are not of its models and data.

    See Also
    --------
    cellflow.numeric.suspicion.suspect : what is suspected, and how strongly.

    Examples
    --------
    Of the run ``runs/exp``, which was predicted out of fold:

    >>> from cellflow import AuditConfig, audit
    >>> result = audit(AuditConfig("exp"))
    >>> result.images, result.table.as_posix()
    (6, 'runs/exp/audit.csv')
    """
    check_config(config)
    run = find_run(config.run, config.runs_dir)
    dataset = run_dataset(run, config.data)
    folds = run_folds(run, dataset)
    record = _checked_record(run)
    store = _open_flows(run)
    names = [str(name) for name in folds.index if folds[name] in record.models]
    facts = {
        name: _facts(run, dataset, name, store, record.models[int(folds[name])])
        for name in follow(names, "audit", brief=True)
    }
    usual = usual_iou(facts.values())
    rows, decided = list[AuditRow](), 0
    known = read_decisions(dataset.path)
    for name in names:
        found = [item for item in suspect(facts[name], usual) if item.suspicion >= config.least]
        listed = _rows(run, dataset, name, found, int(folds[name]))
        before = [item for item in known if item.id == name]
        left = [row for row, runs in listed if not _is_decided(row, runs, before, dataset)]
        decided += len(listed) - len(left)
        rows += left
    rows.sort(key=lambda row: (-row.suspicion, row.id, row.cells, row.predicted))
    folder = config.out or run.path
    page, table = folder / run.audit_page.name, folder / run.audit_table.name
    result = AuditResult(run, tuple(rows), len(names), page, table, store is not None, decided)
    write_audit_list(table, rows)
    write_page_of(
        page, run, dataset, rows, _shown(result, config, usual), lambda name: _oof_labels(run, name)
    )
    return result


def _open_flows(run: RunFolder) -> FlowStore | None:
    """Out-of-fold flows; None, with a warning, where they are gone."""
    if run.flows.exists():
        return FlowStore(run.flows)
    _log.warning(
        "%s is not there (pruned, or not published with the run): how sure the models are is not known, and only "
        "masks are compared. Make it again with: cellflow oof %s",
        run.flows, run_word(run),
    )  # fmt: skip
    return None


def _checked_record(run: RunFolder) -> OofRecord:
    """What made the out-of-fold masks, which are there."""
    masks = run.oof / "masks"
    if not masks.is_dir():
        raise RunError(
            f"Run {run.name!r} has no out-of-fold masks in {masks}. Make them with: cellflow oof {run_word(run)}",
            path=masks,
        )
    try:
        record = read_oof_record(run)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{run.oof_record} cannot be read ({error}). Make it again with: cellflow oof {run_word(run)}",
            path=run.oof_record,
        ) from None
    warn_of_old_masks(run)
    return record


def _facts(
    run: RunFolder, dataset: Dataset, name: str, store: FlowStore | None, model: str
) -> AuditFacts:
    """What is to be known of an image; its flows are those of the model that did not see it."""
    labels, annotations = _oof_labels(run, name), dataset.instances(name)
    if labels.shape != annotations.shape:
        raise DataError(
            f"{run.oof / 'masks' / name}.tif: expected {annotations.shape} as the image has, found "
            f"{labels.shape}. Make it again with: cellflow oof {run_word(run)}",
            id=name, expected=annotations.shape, found=labels.shape,
        )  # fmt: skip
    if store is None:
        return audit_facts(annotations, labels)
    if store.facts(name).get("model_hash") != model:
        raise RunError(
            f"{run.flows}: the flows of {name} were not made by the model of its fold. Make them again with: "
            f"cellflow oof {run_word(run)}",
            path=run.flows, id=name,
        )  # fmt: skip
    flow, cellprob = store.read(name)
    return audit_facts(annotations, labels, flow.astype(np.float32), cellprob.astype(np.float32))


def _oof_labels(run: RunFolder, name: str) -> NDArray[np.int32]:
    """Out-of-fold mask of an image, 1..n without gaps."""
    return compact(read_labels(run.oof / "masks" / f"{name}.tif"))[0]


def _cell_type(dataset: Dataset, name: str) -> str:
    return str(dataset.images.at[name, "cell_type"]) if "cell_type" in dataset.images else ""


def _rows(
    run: RunFolder, dataset: Dataset, name: str, found: Sequence[Suspicion], fold: int
) -> list[tuple[AuditRow, tuple[str, ...]]]:
    """Rows of an image's suspicions, each with the runs of its annotations."""
    if not found:
        return []
    annotations = dataset.instances(name)
    own = rles_from_instances(annotations)
    cells = instances_from_labels(_oof_labels(run, name))
    predicted = rles_from_instances(cells)
    rows = []
    for item in found:
        runs = tuple(own[cell] for cell in item.cells)
        proposal = _proposal(item, annotations, predicted)
        places = [annotations.runs(cell) for cell in item.cells]
        places += [cells.runs(cell) for cell in item.predicted]
        row = AuditRow(
            id=name,
            cells=tuple(cell + 1 for cell in item.cells),
            kind=item.kind,
            proposal=proposal,
            check=row_check(name, runs, proposal),
            data_hash=dataset.hash,
            suspicion=item.suspicion,
            reason=reason_text(item),
            fold=fold,
            cell_type=_cell_type(dataset, name),
            box_yxyx=_box(places, annotations.shape[1]),
            predicted=tuple(cell + 1 for cell in item.predicted),
        )
        rows.append((row, runs))
    return rows


def _proposal(item: Suspicion, annotations: Instances, predicted: Sequence[str]) -> tuple[str, ...]:
    """What stands in place of the annotations if they are fixed."""
    if item.kind == "hollow":
        return (rles_from_instances(fill_holes(annotations))[item.cells[0]],)
    return tuple(predicted[cell] for cell in item.predicted)


def _box(
    runs: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]], width: int
) -> tuple[int, int, int, int]:
    """First row and column, and those past the last, of cells; a run may go over the end of a row."""
    places = np.concatenate(
        [np.arange(a, a + n) for starts, lengths in runs for a, n in zip(starts, lengths, strict=True)]
    )  # fmt: skip
    y, x = np.divmod(places, width)
    return int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1


def _is_decided(
    row: AuditRow, runs: tuple[str, ...], known: Sequence[Decision], dataset: Dataset
) -> bool:
    """Whether somebody has said that these annotations are right, or that none belongs here."""
    if runs:
        right = {text for item in known if item.verdict == "ok" for text in item.annotations}
        return right.issuperset(runs)
    none = [
        text
        for item in known
        if item.verdict == "ok" and not item.annotations
        for text in item.proposal
    ]
    none += [text for item in known if item.verdict == "drop" for text in item.annotations]
    if not none:
        return False
    shape = dataset.instances(row.id).shape
    pairs = match(*(instances_from_rles(list(texts), shape) for texts in (row.proposal, none)))
    return bool((pairs.shared >= SAME * pairs.union).any())


def _shown(result: AuditResult, config: AuditConfig, usual: float) -> Mapping[str, object]:
    """What the page says of the audit."""
    return {
        "n": config.n,
        "images": result.images,
        "flows": result.flows,
        "decided": result.decided,
        "usual": usual,
        "least": config.least,
        "oof_command": f"cellflow oof {run_word(result.run)}",
        "command": f"cellflow audit {run_word(result.run)}",
        "table": result.table.name,
    }

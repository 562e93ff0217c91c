"""Score runs on images that no fold has seen: single models, ensembles, thresholds, flips, and cellpose.

    python benchmarks/unseen.py RUN [RUN ...] --data UNSEEN_DATASET [--most 40]

UNSEEN_DATASET is a dataset made by `cellflow prepare` from images that are not in the runs' data (nor
crops of them). Printed is a Markdown table with the competition score: the mean and the best of the single
fold models, the ensemble of every run and of all runs, each with the training's thresholds and with the
calibrated ones, with and without test-time flips; and `CellposeModel.eval` at its defaults with the first
fold's model of each run. Beside it stand each run's own numbers: cross-fitted score, selection bias, what is
expected of a single model.

Every run's models work at the diameters and cell types that their own style models tell; all runs together
at the mean of these diameters, with the thresholds of the type where all runs agree on it.

Flows are computed once and kept under --flows, so that the same command again costs no network pass.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cellpose.models import CellposeModel
from tqdm import tqdm

from cellflow.config import MaskConfig, RuntimeConfig
from cellflow.engine.runs.contents import read_table
from cellflow.engine.runs.thresholds import Thresholds
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.open_models import Opened, open_models
from cellflow.engine.segmentation.segmenter import FLIPS, Segmenter
from cellflow.io.dataset import Dataset
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.score import competition_score
from cellflow.storage.run_folder import RunFolder, find_run

warnings.simplefilter("ignore")


@dataclass(frozen=True)
class Run:
    """A run with its models, and the thresholds of one of them alone."""

    name: str
    folder: RunFolder
    opened: Opened
    single: Thresholds
    segmenter: Segmenter

    @classmethod
    def open(cls, name: str, machine: Machine, places: dict[str, Path]) -> Run:
        """Open it."""
        folder = find_run(name, places["runs_dir"])
        opened = open_models([name], machine, **places)
        first = sorted(folder.path.glob("fold_*/best.pt"))[0]
        single = open_models([str(first)], machine, **places).thresholds
        segmenter = Segmenter(
            opened.members, MaskConfig(), policy=opened.policy, diameter=opened.diameter, flips=FLIPS,
        )  # fmt: skip
        return cls(folder.name, folder, opened, single, segmenter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"))
    parser.add_argument("--ensembles_dir", type=Path, default=Path("ensembles"))
    parser.add_argument("--most", type=int, help="images of each cell type, the first by id")
    parser.add_argument(
        "--flows", type=Path, default=Path("unseen_flows"), help="where flows are kept, by run"
    )
    parser.add_argument(
        "--cellpose", type=int, default=1, help="models of a run that cellpose runs"
    )
    parser.add_argument("--out", type=Path, help="CSV with the score of every image and row")
    options = parser.parse_args()
    machine = choose_machine(RuntimeConfig())
    places = {"runs_dir": options.runs_dir, "ensembles_dir": options.ensembles_dir}
    runs = [Run.open(name, machine, places) for name in options.runs]
    together = open_models(options.runs, machine, **places) if len(runs) > 1 else None
    dataset = Dataset.open(options.data)
    names = dataset.ids
    if options.most:
        names = list(dataset.images.groupby("cell_type").head(options.most).index)
    rows = []
    for name in tqdm(names, "unseen"):
        rows += image_rows(runs, together, options.flows, dataset, name)
    for run in runs:
        for path in sorted(run.folder.path.glob("fold_*/best.pt"))[: options.cellpose]:
            rows += cellpose_rows(
                f"{run.name}, {path.parent.name} in cellpose", path, dataset, names
            )
    table = pd.DataFrame(rows)
    if options.out:
        table.to_csv(options.out, index=False)
    print_table(table)
    for run in runs:
        cv = read_table(run.folder.cv, ["scope", "name"])
        print_agreement(table[table["run"] == run.name], cv, run.name)


def image_rows(
    runs: list[Run], together: Opened | None, flows_dir: Path, dataset: Dataset, name: str
) -> list[dict[str, object]]:
    """Scores of an image: every model alone, every run's ensemble, and all runs together."""
    truth = dataset.instances(name)
    facts = {"id": name, "cell_type": dataset.images.loc[name].get("cell_type", "")}
    rows: list[dict[str, object]] = []
    known = [kept_flows(flows_dir / run.name, run.segmenter, dataset, name) for run in runs]

    def add(run: str, what: str, means: tuple, diameter: float, masks: dict, view: str) -> None:
        for thresholds, mask in masks.items():
            labels = make_labels(*means[:2], diameter, mask)
            score = competition_score(truth, labels).mean
            rows.append(
                {**facts, "run": run, "what": what, "thresholds": thresholds, "flips": view,
                 "score": score}
            )  # fmt: skip

    for view in ("no", "yes"):
        for run, (flows, diameter, found_type) in zip(runs, known, strict=True):
            masks = {"default": MaskConfig(), "calibrated": run.single.of(found_type)}
            for place, own in enumerate(flows[view]):
                add(run.name, f"fold {place}", own, diameter, masks, view)
            masks["calibrated"] = run.opened.thresholds.of(found_type)
            mean = average_flows(flows[view], variant=run.opened.average)
            add(run.name, "ensemble", mean, diameter, masks, view)
        if together is not None:
            every = [own for flows, _, _ in known for own in flows[view]]
            types = {found_type for _, _, found_type in known}
            found_type = types.pop() if len(types) == 1 else ""
            masks = {"default": MaskConfig(), "calibrated": together.thresholds.of(found_type)}
            diameter = float(np.mean([item[1] for item in known]))
            mean = average_flows(every, variant=together.average)
            add("all", "ensemble of all runs", mean, diameter, masks, view)
    return rows


def cellpose_rows(
    what: str, path: Path, dataset: Dataset, names: list[str]
) -> list[dict[str, object]]:
    """Scores of `CellposeModel.eval` at its defaults with a model of ours."""
    theirs = CellposeModel(gpu=torch.cuda.is_available(), pretrained_model=str(path))
    rows = []
    for name in tqdm(names, what):
        labels = theirs.eval(dataset.image(name), channels=[0, 0])[0].astype(np.int32)
        score = competition_score(dataset.instances(name), labels).mean
        cell_type = dataset.images.loc[name].get("cell_type", "")
        rows.append(
            {"id": name, "cell_type": cell_type, "run": "cellpose", "what": what,
             "thresholds": "cellpose's", "flips": "no", "score": score}
        )  # fmt: skip
    return rows


def kept_flows(folder: Path, segmenter: Segmenter, dataset: Dataset, name: str):
    """Flows of every member without and with flips, diameter and type; from disk where they are there."""
    path = folder / f"{name}.npz"
    if not path.exists():
        flows, diameter, found_type = segmenter.member_flows(dataset.image(name))
        views = [flows[at : at + len(FLIPS)] for at in range(0, len(flows), len(FLIPS))]
        kinds = {
            "no": [own[0] for own in views],
            "yes": [average_flows(own)[:2] for own in views],
        }
        stacked = {
            kind: np.stack([np.concatenate([flow, logit[None]]) for flow, logit in members])
            for kind, members in kinds.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        halves = {kind: array.astype(np.float16) for kind, array in stacked.items()}
        np.savez(path, diameter=diameter, found_type=found_type, **halves)
    with np.load(path, allow_pickle=False) as file:
        flows = {
            kind: [(member[:2], member[2]) for member in file[kind].astype(np.float32)]
            for kind in ("no", "yes")
        }
        return flows, float(file["diameter"]), str(file["found_type"])


def print_agreement(table: pd.DataFrame, cv: pd.DataFrame, name: str) -> None:
    """What the cross-validation expects of a single model, beside what single models got."""
    singles = table[table["what"].str.startswith("fold") & (table["flips"] == "no")]
    chosen = singles[singles["thresholds"] == "calibrated"]
    got = chosen.groupby("cell_type")["score"].mean()
    head = ["cell type", "cross-fitted", "bias of the epoch", "expected", "95 % interval"]
    print(f"\n{name}\n\n| {' | '.join(head)} | unseen, mean of the single models |")
    print("|---|---|---|---|---|---|")
    types = cv[(cv["scope"] == "cell_type") & cv["name"].isin(got.index)]
    mixed = float(np.average(got[types["name"]], weights=types["images"]))
    overall = cv[cv["scope"] == "overall"].assign(name="all, mixed as in the run")
    scores = [*got[types["name"]], mixed]
    for row, score in zip(pd.concat([types, overall]).itertuples(), scores, strict=True):
        print(
            f"| {row.name} | {row.cross_fitted:.4f} | {row.selection_bias:.4f} | {row.expected:.4f} | "
            f"{row.low:.4f} to {row.high:.4f} | {score:.4f} |"
        )


def print_table(table: pd.DataFrame) -> None:
    """A row per kind of prediction; intervals resample images."""
    types = sorted(table["cell_type"].unique())
    print(f"\n| run | what | thresholds | flips | score | 95 % interval | {' | '.join(types)} |")
    print("|" + "---|" * (6 + len(types)))
    singles = table[table["what"].str.startswith("fold")]
    keys = ["id", "cell_type", "run", "thresholds", "flips"]
    mean = singles.groupby(keys, as_index=False)["score"].mean()
    parts = [mean.assign(what="mean of the single models"), table]
    every = pd.concat(parts, ignore_index=True)
    for names, part in every.groupby(["run", "what", "thresholds", "flips"], sort=False):
        interval = bootstrap_mean(part["score"].to_numpy())
        cells = [f"{part.loc[part['cell_type'] == name, 'score'].mean():.4f}" for name in types]
        print(
            f"| {' | '.join(names)} | {interval.mean:.4f} | {interval.low:.4f} to "
            f"{interval.high:.4f} | {' | '.join(cells)} |"
        )


if __name__ == "__main__":
    main()

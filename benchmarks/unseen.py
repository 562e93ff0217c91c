"""Score a run on images that no fold has seen: single models, ensemble, thresholds, flips, and cellpose.

    python benchmarks/unseen.py RUN --data UNSEEN_DATASET [--most 40]

UNSEEN_DATASET is a dataset made by `cellflow prepare` from images that are not in the run's data (nor
crops of them). Printed is a Markdown table with the competition score: the mean and the best of the single
fold models, the ensemble, each with the training's thresholds and with the calibrated ones, with and
without test-time flips; and `CellposeModel.eval` at its defaults with each fold's model. Beside it stand
the run's own numbers: cross-fitted score, selection bias, what is expected of a single model.

Flows are computed once and kept under --flows, so that the same command again costs no network pass.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from cellpose.models import CellposeModel
from tqdm import tqdm

from cellflow.config import MaskConfig, RuntimeConfig
from cellflow.engine.machine import choose_machine
from cellflow.engine.models import open_models
from cellflow.engine.prediction import make_labels
from cellflow.engine.segment import FLIPS, Segmenter
from cellflow.io.dataset import Dataset
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.score import competition_score
from cellflow.storage.run_folder import find_run

warnings.simplefilter("ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"))
    parser.add_argument("--ensembles_dir", type=Path, default=Path("ensembles"))
    parser.add_argument("--most", type=int, help="images of each cell type, the first by id")
    parser.add_argument(
        "--flows", type=Path, default=Path("unseen_flows"), help="where flows are kept"
    )
    parser.add_argument("--cellpose", type=int, default=1, help="fold models that cellpose runs")
    parser.add_argument("--out", type=Path, help="CSV with the score of every image and row")
    options = parser.parse_args()
    machine = choose_machine(RuntimeConfig())
    places = {"runs_dir": options.runs_dir, "ensembles_dir": options.ensembles_dir}
    everyone = open_models([options.run], machine.device, **places)
    run = find_run(options.run, options.runs_dir)
    folds = sorted(run.path.glob("fold_*/best.pt"))
    single = open_models([str(folds[0])], machine.device, **places).thresholds
    dataset = Dataset.open(options.data)
    names = dataset.ids
    if options.most:
        names = list(dataset.images.groupby("cell_type").head(options.most).index)
    settings = {
        "default thresholds": {
            "single": lambda _: MaskConfig(),
            "ensemble": lambda _: MaskConfig(),
        },
        "calibrated thresholds": {"single": single.of, "ensemble": everyone.thresholds.of},
    }
    segmenter = Segmenter(
        everyone.members, MaskConfig(), amp=machine.amp, policy=everyone.policy,
        diameter=everyone.diameter, flips=FLIPS,
    )  # fmt: skip
    rows: list[dict[str, object]] = []
    for name in tqdm(names, "unseen"):
        flows, diameter, found_type = kept_flows(options.flows, segmenter, dataset, name)
        truth = dataset.instances(name)
        facts = {"id": name, "cell_type": dataset.images.loc[name].get("cell_type", "")}
        for view in ("no", "yes"):
            means = {f"fold {place}": own for place, own in enumerate(flows[view])}
            means["ensemble"] = average_flows(flows[view], variant=everyone.average)[:2]
            for what, (flow, cellprob) in means.items():
                kind = "ensemble" if what == "ensemble" else "single"
                for thresholds, of in settings.items():
                    labels = make_labels(flow, cellprob, diameter, of[kind](found_type))
                    score = competition_score(truth, labels).mean
                    rows.append(
                        {
                            **facts,
                            "what": what,
                            "thresholds": thresholds,
                            "flips": view,
                            "score": score,
                        }
                    )
    for place, path in enumerate(folds[: options.cellpose]):
        theirs = CellposeModel(gpu=machine.device.type == "cuda", pretrained_model=str(path))
        for name in tqdm(names, f"cellpose, fold {place}"):
            labels = theirs.eval(dataset.image(name), channels=[0, 0])[0].astype(np.int32)
            score = competition_score(dataset.instances(name), labels).mean
            cell_type = dataset.images.loc[name].get("cell_type", "")
            rows.append(
                {"id": name, "cell_type": cell_type, "what": f"cellpose, fold {place}",
                 "thresholds": "cellpose's defaults", "flips": "no", "score": score}
            )  # fmt: skip
    table = pd.DataFrame(rows)
    if options.out:
        table.to_csv(options.out, index=False)
    print_table(table)
    print_agreement(table, pd.read_csv(run.cv))


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


def print_agreement(table: pd.DataFrame, cv: pd.DataFrame) -> None:
    """What the cross-validation expects of a single model, beside what single models got."""
    singles = table[table["what"].str.startswith("fold") & (table["flips"] == "no")]
    got = (
        singles[singles["thresholds"] == "calibrated thresholds"]
        .groupby("cell_type")["score"]
        .mean()
    )
    head = ["cell type", "cross-fitted", "bias of the epoch", "expected", "95 % interval"]
    print(
        f"\n| {' | '.join(head)} | unseen, mean of the single models |\n|---|---|---|---|---|---|"
    )
    types = cv[(cv["scope"] == "cell_type") & cv["name"].isin(got.index)]
    for row in types.itertuples():
        print(
            f"| {row.name} | {row.cross_fitted:.4f} | {row.selection_bias:.4f} | {row.expected:.4f} | "
            f"{row.low:.4f} to {row.high:.4f} | {got[row.name]:.4f} |"
        )
    row = cv[cv["scope"] == "overall"].iloc[0]
    mixed = float(np.average(got[types["name"]], weights=types["images"]))
    print(
        f"| all, mixed as in the run | {row.cross_fitted:.4f} | {row.selection_bias:.4f} | "
        f"{row.expected:.4f} | {row.low:.4f} to {row.high:.4f} | {mixed:.4f} |"
    )


def print_table(table: pd.DataFrame) -> None:
    """A row per kind of prediction; intervals resample images."""
    types = sorted(table["cell_type"].unique())
    print(f"\n| what | thresholds | flips | score | 95 % interval | {' | '.join(types)} |")
    print("|" + "---|" * (5 + len(types)))
    singles = table[table["what"].str.startswith("fold")]
    mean = singles.groupby(["id", "cell_type", "thresholds", "flips"], as_index=False)[
        "score"
    ].mean()
    parts = [mean.assign(what="mean of the single models"), table]
    every = pd.concat(parts, ignore_index=True)
    for (what, thresholds, flips), part in every.groupby(
        ["what", "thresholds", "flips"], sort=False
    ):
        interval = bootstrap_mean(part["score"].to_numpy())
        cells = [f"{part.loc[part['cell_type'] == name, 'score'].mean():.4f}" for name in types]
        print(
            f"| {what} | {thresholds} | {flips} | {interval.mean:.4f} | {interval.low:.4f} to "
            f"{interval.high:.4f} | {' | '.join(cells)} |"
        )


if __name__ == "__main__":
    main()

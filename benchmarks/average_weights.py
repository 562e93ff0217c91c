"""One network whose weights are the mean of those of a run's folds: is it worth the ensemble of their flows?

    python benchmarks/average_weights.py RUN --test DATASET

DATASET has images that no fold has seen. Printed is the mean score of the single fold models, of their ensemble, and
of the network of averaged weights (batch norm's statistics too), all at the thresholds of the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cellflow import MaskConfig, RuntimeConfig, competition_score
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.io.dataset import Dataset


def averaged(paths: list[Path], out: Path) -> Path:
    """A model file with the mean of the weights of others."""
    states = [torch.load(path, weights_only=True) for path in paths]
    mean = states[0]
    for key in mean:
        mean[key] = (
            torch.stack([state[key].double() for state in states]).mean(0).to(mean[key].dtype)
        )
    torch.save(mean, out)
    return out


def score(members: list[Member], test: Dataset) -> float:
    """Mean score of the average of members."""
    segmenter = Segmenter(members, MaskConfig())
    found = [segmenter.predict(test.image(name)).labels for name in test.ids]
    return competition_score([test.instances(name) for name in test.ids], found).mean


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--test", type=Path, required=True)
    options = parser.parse_args()
    machine, test = choose_machine(RuntimeConfig()), Dataset.open(options.test)
    paths = sorted(options.run.glob("fold_*/best.pt"))
    members = [load_member(path, path.parent.name, machine) for path in paths]
    single = [score([member], test) for member in members]
    with TemporaryDirectory() as folder:
        path = averaged(paths, Path(folder) / "mean.pt")
        mean = score([load_member(path, "mean", machine)], test)
    each = " ".join(f"{value:.4f}" for value in single)
    print(f"single {sum(single) / len(single):.4f} ({each})")
    print(f"ensemble {score(members, test):.4f}, mean of the weights {mean:.4f}")


if __name__ == "__main__":
    main()

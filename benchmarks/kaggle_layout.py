"""Score a run and its folds on the unseen test images of the Kaggle layout, whose truth lies beside it.

    python benchmarks/kaggle_layout.py RUN PREDICTION --shared SHARED_DATA

SHARED_DATA holds ``kaggle_layout/test`` (crops of images that no fold saw) and ``usiigaci/masks`` (label maps
of the images that they were cut from). PREDICTION is what `cellflow ensemble` wrote of the test images.
Printed are the competition score of it, its precision at IoU 0.5, and the score of every fold alone, all at
Cellpose's default thresholds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import cellflow
from cellflow.io.images import read_labels, read_masks

CROPS = {"0": np.s_[0:520, 0:704], "1": np.s_[502:1022, 320:1024]}
"""Where a test image lies in the one it was cut from, by the last sign of its name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("prediction", type=Path)
    parser.add_argument("--shared", type=Path, required=True)
    args = parser.parse_args()
    images = sorted((args.shared / "kaggle_layout/test").glob("*.png"))
    sources = args.shared / "usiigaci/masks"
    truth = [read_masks(sources / f"{path.stem[:5]}.png")[CROPS[path.stem[6]]] for path in images]
    found = [read_labels(args.prediction / "masks" / f"{path.stem}.tif") for path in images]
    print(f"ensemble      {cellflow.competition_score(truth, found).mean:.4f}")
    print(f"  at IoU 0.5  {cellflow.average_precision(truth, found, [0.5]).mean:.4f}")
    default = cellflow.MaskConfig()
    thresholds = {
        name: getattr(default, name)
        for name in ("cellprob_threshold", "flow_threshold", "min_size")
    }
    for best in sorted(args.run.glob("fold_*/best.pt")):
        model = cellflow.load_model(best, device="cpu")
        found = [result.labels for result in model.predict(images, **thresholds)]
        print(f"{best.parent.name} alone  {cellflow.competition_score(truth, found).mean:.4f}")


if __name__ == "__main__":
    main()

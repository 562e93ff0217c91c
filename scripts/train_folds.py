"""Train folds of a run: the same as `cellflow train`. Try: python scripts/train_folds.py --help."""

import sys

from cellflow.cli import run_command

if __name__ == "__main__":
    run_command("train", sys.argv[1:], prog="train_folds.py")

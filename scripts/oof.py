"""Predict every image with the fold model that never saw it: the same as `cellflow oof`."""

import sys

from cellflow.cli import run_command

if __name__ == "__main__":
    run_command("oof", sys.argv[1:], prog="oof.py")

"""Average the flows of all fold models and make masks once: the same as `cellflow ensemble`."""

import sys

from cellflow.cli import run_command

if __name__ == "__main__":
    run_command("ensemble", sys.argv[1:], prog="ensemble.py")

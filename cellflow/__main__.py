"""`python -m cellflow`."""

from cellflow.cli import main

if __name__ == "__main__":
    main()

"""The cells of the inference notebook: plain Python that runs before cellflow is installed."""

from __future__ import annotations

__all__ = ["FIND", "INSTALL", "INTRODUCTION", "PREDICT", "SETTINGS", "SUBMISSION"]

INTRODUCTION = """
# {experiment}: submission without internet

Made by `cellflow kaggle-notebook {experiment}`. Add two things with *Add Input*:

1. the dataset that `cellflow publish {experiment}` has made ({title});
2. the competition, or any dataset with a folder `{images}`.

Then *Run All*. The cells find the models by their content, install cellflow from the wheels in the same
dataset, predict with the run's own diameters and thresholds, and write `submission.csv`.
"""

SETTINGS = """
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXPERIMENT = {experiment}
TITLE = {title}  # of its dataset
MODELS = {models}  # hashes of the model files
IMAGES = {images}
FLAGS = {flags}  # of cellflow predict

INPUT = Path(os.environ.get("CELLFLOW_KAGGLE_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("CELLFLOW_KAGGLE_WORKING", "/kaggle/working"))
TEMPORARY = Path(tempfile.mkdtemp())
"""

FIND = '''
def folders(root, depth=5):
    """All folders down to a depth, nearest first."""
    level = [root]
    for _ in range(depth):
        yield from level
        level = [Path(item) for folder in level for item in os.scandir(folder) if item.is_dir()]


def name_in_run(path, root):
    """Name of a file in the run; a folder that was unpacked into one of its own name counts once."""
    parts = path.relative_to(root).parts
    return "/".join(parts[1:] if len(parts) > 2 and parts[0] == parts[1] else parts)


def hash_file(path):
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def find_run():
    """Files of the published run by name: the one whose models are those of this notebook."""
    others = []
    for folder in folders(INPUT):
        if (folder / "config.yaml").is_file():
            paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
            files = {name_in_run(path, folder): path for path in paths}
            there = {name: hash_file(files[name]) for name in MODELS if name in files}
            if there == MODELS:
                return folder, files
            others.append(str(folder))
    raise FileNotFoundError(
        f"No dataset with the models of {EXPERIMENT} in {INPUT}. Add {TITLE} with Add Input. "
        f"Runs with other models: {', '.join(others) or 'none'}. If the run has changed since, publish "
        "it again, and make this notebook again with: cellflow kaggle-notebook"
    )


def find_images():
    """The folder of images, wherever its dataset is mounted."""
    for folder in folders(INPUT):
        if (folder / IMAGES).is_dir():
            return folder / IMAGES
    raise FileNotFoundError(f"No folder {IMAGES} in {INPUT}. Add the competition with Add Input.")


published, files = find_run()
images = find_images()

# Inputs are read-only, and a dataset's folder has not the run's name: links make it a run again.
run_folder = TEMPORARY / "runs" / EXPERIMENT
for name, path in files.items():
    link = run_folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(path.resolve())
print(f"{published}: {len(files)} files, {len(MODELS)} models. Images: {images}")
'''

INSTALL = '''
def run(*command):
    """Run a command, with what it says in this cell."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        print(line, end="")
    if process.wait():
        raise RuntimeError(f"{' '.join(command[:4])} ... failed, see above")


wheels = run_folder / "wheels"
own = sorted(wheels.glob("cellflow-*.whl"))
if own:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        run(*pip, "--no-compile", "--no-index", "--find-links", str(wheels), str(own[-1]))
    except RuntimeError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        print(f"If wheels do not fit: this is Python {version}. Publish for it with:")
        print(f"cellflow publish {EXPERIMENT} --wheels_python {version}")
        raise
elif importlib.util.find_spec("cellflow") is None:
    raise FileNotFoundError(
        f"No wheels in {published}, and cellflow is not installed. Publish them along with: "
        f"cellflow publish {EXPERIMENT} --wheels missing"
    )
'''

PREDICT = """
run(
    *(sys.executable, "-m", "cellflow", "predict", str(images), "--model", EXPERIMENT),
    *("--runs_dir", str(run_folder.parent), "--ensembles_dir", str(run_folder / "ensembles")),
    *("--out", str(TEMPORARY / "predictions"), "--name", "result", "--export", "submission"),
    *FLAGS,
)
"""

SUBMISSION = """
WORKING.mkdir(parents=True, exist_ok=True)
submission = WORKING / "submission.csv"
shutil.copyfile(TEMPORARY / "predictions" / "result" / "submission.csv", submission)
with open(submission) as file:
    rows = file.read().splitlines()
print(f"{submission}: {len(rows) - 1} cells")
for row in rows[:6]:
    print(row[:100])
"""

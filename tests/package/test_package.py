"""What is installed: the wheel, and the image of the Dockerfile, made in empty environments."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from docker_steps import Stage, take_steps

pytestmark = pytest.mark.package

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """All steps of the Dockerfile, the demo's whole job among them."""
    return take_steps(ROOT / "Dockerfile", ROOT, tmp_path_factory.mktemp("docker"))


def test_the_dockerfile_is_linted() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed; it has wheels for x86 Linux only")
    command = [linter, "--failure-threshold", "style", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_wheel_holds_the_package_and_nothing_else(image: Stage) -> None:
    (wheel,) = image.path("/opt/cellflow/wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "cellflow"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    facts = {name for name in inside if name.split("/")[0].endswith(".dist-info")}
    assert inside - facts == set(listed.stdout.splitlines())
    assert {Path(name).name for name in facts} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "LICENSE",
    }  # fmt: skip


def test_it_runs_where_there_is_no_repository(image: Stage) -> None:
    entry = image.entry["ENTRYPOINT"]
    overview = image.run([*entry, *image.entry["CMD"]])
    assert (overview.returncode, overview.stderr) == (0, "")
    assert "usage: cellflow COMMAND" in overview.stdout
    where = image.run(["python", "-c", "import cellflow; print(cellflow.__file__)"])
    assert where.stdout.startswith(str(image.path("/python")))
    assert image.run([*entry, "checks"]).returncode == 0
    found = image.run(["python", "-m", "pip", "check"])
    assert (found.returncode, found.stdout) == (0, "No broken requirements found.\n")
    kernels = list(image.path("/opt/cellflow/kernels").rglob("*.nbi"))
    assert len(kernels) > 20


def test_a_part_that_is_not_installed_is_named(image: Stage) -> None:
    done = image.run([*image.entry["ENTRYPOINT"], "checks"])
    assert "pip install 'cellflow[" in done.stdout

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cellflow.environment import (
    amp_type,
    detect_host,
    environment_record,
    host_defaults,
    take_snapshot,
)
from cellflow.environment.probe import cgroup_limits, prepared_datasets
from cellflow.environment.snapshot import Gpu, Snapshot
from cellflow.errors import ConfigError
from cellflow.nn.precision import choose_amp, choose_device

SNAPSHOTS = Path(__file__).parent / "snapshots"
HOSTS = {
    "colab_cpu": "colab",
    "colab_gpu_drive": "colab",
    "kaggle_batch_2020": "kaggle",
    "kaggle_t4x2": "kaggle",
    "kaggle_image_elsewhere": "plain",
    "paperspace": "paperspace",
    "jarvislabs": "jarvislabs",
    "slurm_on_kaggle_image": "slurm",
    "plain": "plain",
}


def read(name: str) -> Snapshot:
    plain = json.loads((SNAPSHOTS / f"{name}.json").read_text())
    del plain["provenance"]
    gpus = [{key: as_tuple(value) for key, value in gpu.items()} for gpu in plain.pop("gpus", ())]
    return Snapshot(
        **{key: as_tuple(value) for key, value in plain.items()},
        gpus=tuple(Gpu(**gpu) for gpu in gpus),
    )


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def with_variables(snapshot: Snapshot, **more: str) -> Snapshot:
    return replace(snapshot, variables=snapshot.variables | more)


def test_every_recorded_snapshot_is_tested_and_says_where_it_is_from() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == set(HOSTS)
    for path in SNAPSHOTS.glob("*.json"):
        assert json.loads(path.read_text())["provenance"]


@pytest.mark.parametrize("name", HOSTS)
def test_hosts_are_told_apart(name: str) -> None:
    host = detect_host(read(name))
    assert host.name == HOSTS[name]
    assert host.reason


def test_slurm_goes_before_whatever_its_job_runs_in() -> None:
    for name in HOSTS:
        assert detect_host(with_variables(read(name), SLURM_JOB_ID="1")).name == "slurm"


def test_credentials_for_a_host_do_not_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What people set on a laptop, or on Colab, to reach other hosts."""
    for name in os.environ:
        if name.startswith(("CELLFLOW_HOST", "COLAB_", "KAGGLE_", "PAPERSPACE_", "SLURM_")):
            monkeypatch.delenv(name)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "PAPERSPACE_API_KEY", "PAPERSPACE_NOTEBOOK_ID"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("JL_API_KEY", "x")
    found = take_snapshot(quick=True)
    assert detect_host(replace(found, paths=("/kaggle/input", "/storage"))).name == "plain"


def test_a_person_decides() -> None:
    chosen = with_variables(read("kaggle_t4x2"), CELLFLOW_HOST=" JarvisLabs ")
    assert detect_host(chosen).name == "jarvislabs"
    with pytest.raises(ConfigError, match=r"expected one of colab, .*found 'laptop'"):
        detect_host(with_variables(chosen, CELLFLOW_HOST="laptop"))


def folders(snapshot: Snapshot) -> list[str]:
    found = host_defaults(detect_host(snapshot), snapshot)
    paths = (found.data, found.data_out, found.runs_dir, found.predictions_dir, found.ensembles_dir)
    return [path.as_posix() for path in paths]


def in_folder(base: str) -> list[str]:
    names = ("cellflow-data", "cellflow-data", "runs", "predictions", "ensembles")
    return [(Path(base) / name).as_posix() for name in names]


def test_a_plain_machine_keeps_everything_in_the_working_folder() -> None:
    snapshot = read("plain")
    assert folders(snapshot) == in_folder("")
    found = host_defaults(detect_host(snapshot), replace(snapshot, gpus=(Gpu("some"),)))
    assert (found.workers, found.notes) == (None, ())


def test_results_go_where_they_last() -> None:
    assert folders(read("colab_gpu_drive")) == in_folder("/content/drive/MyDrive/cellflow")
    assert folders(read("paperspace")) == in_folder("/storage/cellflow")
    assert folders(read("jarvislabs")) == in_folder("/home/jl_fs/cellflow")
    without_fs = with_variables(
        replace(read("jarvislabs"), paths=("/home",)), CELLFLOW_HOST="jarvislabs"
    )
    assert folders(without_fs) == in_folder("/home/cellflow")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("colab_gpu_drive", "/content/drive/MyDrive/cells"),
        ("kaggle_batch_2020", "/kaggle/working/repo"),
        ("paperspace", "/storage/cells"),
        ("jarvislabs", "/home/jl_fs/cells"),
        ("slurm_on_kaggle_image", "/project/cells/second"),
    ],
)
def test_a_working_folder_that_lasts_is_kept(name: str, folder: str) -> None:
    assert folders(replace(read(name), folder=folder)) == in_folder("")


def test_colab_without_drive_is_told_how_to_mount_it() -> None:
    snapshot = replace(read("colab_cpu"), folder="/root")
    assert folders(snapshot) == in_folder("/content")
    (note,) = host_defaults(detect_host(snapshot), snapshot).notes
    assert "drive.mount" in note
    assert host_defaults(detect_host(snapshot), read("colab_gpu_drive")).notes == ()


def test_kaggle_takes_the_one_attached_dataset() -> None:
    snapshot = read("kaggle_t4x2")
    found = host_defaults(detect_host(snapshot), snapshot)
    assert found.data == Path("/kaggle/input/datasets/someone/exp-0-31")
    assert found.data_out == Path("cellflow-data")
    elsewhere = replace(snapshot, folder="/root")
    assert folders(elsewhere)[1:] == in_folder("/kaggle/working")[1:]


def test_kaggle_does_not_guess_between_two_datasets() -> None:
    snapshot = read("kaggle_t4x2")
    two = replace(snapshot, datasets=(*snapshot.datasets, "/kaggle/input/other"))
    found = host_defaults(detect_host(two), two)
    assert found.data == Path("cellflow-data")
    assert "--data" in found.notes[0]
    assert "/kaggle/input/other" in found.notes[0]
    own = replace(two, datasets=(*two.datasets, "/kaggle/working/cellflow-data"))
    assert host_defaults(detect_host(own), own).notes == ()


def test_slurm_leaves_the_disk_of_the_node() -> None:
    snapshot = replace(read("slurm_on_kaggle_image"), folder="/localscratch/someone.483634/work")
    assert folders(snapshot) == in_folder("/project/cells")
    submitted_there = with_variables(snapshot, SLURM_SUBMIT_DIR="/tmp/someone")
    assert folders(submitted_there) == in_folder("/scratch/someone/cellflow")
    nowhere = with_variables(submitted_there, SCRATCH="")
    assert folders(nowhere) == in_folder("")
    assert "--runs_dir" in host_defaults(detect_host(nowhere), nowhere).notes[0]


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("colab_cpu", None),
        ("colab_gpu_drive", 8),
        ("kaggle_t4x2", 2),
        ("jarvislabs", 7),
        ("slurm_on_kaggle_image", 6),
    ],
)
def test_workers_follow_what_is_granted(name: str, workers: int | None) -> None:
    snapshot = read(name)
    assert host_defaults(detect_host(snapshot), snapshot).workers == workers


def test_the_tightest_limit_counts() -> None:
    assert read("slurm_on_kaggle_image").usable_cores == 6
    assert read("slurm_on_kaggle_image").usable_memory == 32768 * 2**20
    assert read("jarvislabs").usable_memory == 34359738368
    snapshot = Snapshot(cpu_count=8, affinity=4, cgroup_cpus=0.5)
    assert snapshot.usable_cores == 1
    outside = Snapshot(cpu_count=8, variables={"SLURM_CPUS_PER_TASK": "2"})
    assert outside.usable_cores == 8  # left over in a shell, no job
    everything = Snapshot(memory=100, variables={"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "0"})
    assert everything.usable_memory == 100


@pytest.mark.parametrize(
    ("name", "device", "kind"),
    [
        ("kaggle_t4x2", "cuda", "float16"),
        ("slurm_on_kaggle_image", "cuda", "bfloat16"),
        ("plain", "cpu", "bfloat16"),
        ("colab_cpu", "cpu", "off"),
    ],
)
def test_amp_type(name: str, device: str, kind: str) -> None:
    found = amp_type(read(name))
    assert (found.device, found.type) == (device, kind)
    assert found.reason


def test_amp_type_is_what_training_takes_on_this_machine() -> None:
    device = choose_device("auto")
    found = amp_type(take_snapshot())
    kind = choose_amp("auto", device)
    assert found.device == device.type
    assert found.type == ("off" if kind is None else str(kind).removeprefix("torch."))


def test_a_snapshot_of_this_machine(tmp_path: Path) -> None:
    snapshot = take_snapshot(tmp_path)
    assert snapshot.folder == str(tmp_path.resolve())
    assert snapshot.free_disk[snapshot.folder] > 0
    assert 1 <= snapshot.usable_cores <= (os.cpu_count() or 1)
    assert snapshot.versions["torch"].startswith("2.")
    assert snapshot.python == ".".join(map(str, sys.version_info[:3]))


def test_the_commit_is_that_of_cellflow() -> None:
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert take_snapshot().commit == head.stdout.strip()


def test_prepared_datasets_are_found_and_others_are_not(tmp_path: Path) -> None:
    assert take_snapshot(tmp_path, quick=True).datasets == ()
    folder = tmp_path / "cellflow-data"
    folder.mkdir()
    (folder / "dataset.json").write_text('{"name": "nnU-Net writes this file too"}')
    assert take_snapshot(tmp_path, quick=True).datasets == ()
    (folder / "dataset.json").write_text('{"format": "cellflow-dataset", "version": 1}')
    assert take_snapshot(tmp_path, quick=True).datasets == (str(folder),)


def test_attached_datasets_are_found_wherever_kaggle_mounts_them(tmp_path: Path) -> None:
    places = (
        "cells",
        "datasets/someone/cells",
        "datasets/someone/zipped/a/b",
        "a/b/c/d/e/too-deep",
    )
    for place in (*places, "cells/copy-inside"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "dataset.json").write_text('{"format": "cellflow-dataset"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset.json").write_text("[")
    assert set(prepared_datasets(tmp_path)) == {str(tmp_path / place) for place in places[:3]}
    assert list(prepared_datasets(tmp_path / "missing")) == []


def test_a_quick_snapshot_imports_nothing_heavy() -> None:
    program = (
        "import sys; from cellflow.environment import *; s = take_snapshot(quick=True); "
        "host_defaults(detect_host(s), s); "
        "assert not {'torch', 'numba', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_secret_is_in_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "WANDB_API_KEY", "KAGGLE_KEY", "KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_DATA_PROXY_TOKEN",
        "KAGGLE_API_TOKEN", "SLACK_WEBHOOK_URL", "GOOGLE_APPLICATION_CREDENTIALS", "COLAB_JUPYTER_TOKEN",
        "PAPERSPACE_API_KEY", "JL_API_KEY", "SLURM_JWT", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "HOME_MADE",
    )  # fmt: skip
    for number, name in enumerate(names):
        monkeypatch.setenv(name, f"hush-{number}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    snapshot = take_snapshot()
    text = json.dumps(environment_record(snapshot, detect_host(snapshot)))
    assert "hush" not in text + json.dumps(snapshot.to_dict())
    assert '"77"' in text  # variables are recorded at all


def test_a_record_has_the_same_keys_everywhere() -> None:
    records = []
    for name in HOSTS:
        snapshot = read(name)
        records.append(environment_record(snapshot, detect_host(snapshot)))
        assert json.loads(json.dumps(records[-1])) == records[-1]
    assert len({tuple(record) for record in records}) == 1
    slurm = records[list(HOSTS).index("slurm_on_kaggle_image")]
    assert slurm["environment"] == slurm["host"]["name"] == "slurm"
    assert slurm["gpus"][0]["capability"] == [8, 0]
    assert (slurm["usable_cores"], slurm["amp"]["type"]) == (6, "bfloat16")


def test_a_label_names_the_machine_without_changing_its_host() -> None:
    snapshot = read("plain")
    record = environment_record(snapshot, detect_host(snapshot), label="the big one")
    assert (record["environment"], record["host"]["name"]) == ("the big one", "plain")


def cgroup(root: Path, lines: str, contents: dict[str, str]) -> tuple[float | None, int | None]:
    """Limits that are read from files below a root."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in contents.items()}
    for name, text in {"proc/self/cgroup": lines, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return cgroup_limits(root)


def test_cgroup_version_2(tmp_path: Path) -> None:
    """The limit of a group above counts too."""
    contents = {
        "user/cpu.max": "150000 100000",
        "user/job/cpu.max": "max 100000",
        "user/memory.max": "max",
        "user/job/memory.max": "4294967296",
    }
    assert cgroup(tmp_path, "0::/user/job", contents) == (1.5, 4294967296)


def test_cgroup_version_1_in_a_container(tmp_path: Path) -> None:
    """The group's path may be that of the machine outside, which is not there; its limits are at the top."""
    lines = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"
    contents = {
        "cpu,cpuacct/cpu.cfs_quota_us": "200000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "2147483648",
    }
    assert cgroup(tmp_path, lines, contents) == (2.0, 2147483648)


@pytest.mark.parametrize(
    ("lines", "contents"),
    [
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}),
        ("0::/../../elsewhere", {}),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}),
        ("2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
        ("nonsense", {}),
    ],
)
def test_cgroup_without_limits(tmp_path: Path, lines: str, contents: dict[str, str]) -> None:
    assert cgroup(tmp_path, lines, contents) == (None, None)


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert cgroup_limits(tmp_path) == (None, None)

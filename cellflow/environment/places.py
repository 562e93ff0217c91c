"""Variables and folders that tell hosts apart, and folders of hosts that last."""

from __future__ import annotations

from typing import Literal

__all__ = ["DATA", "DRIVES", "INPUT", "LASTING", "PATHS", "VARIABLES", "HostName"]

HostName = Literal["colab", "kaggle", "paperspace", "jarvislabs", "slurm", "plain"]

VARIABLES = (
    "CELLFLOW_HOST", "CELLFLOW_THREADS",
    "COLAB_BACKEND_VERSION", "COLAB_GPU", "COLAB_JUPYTER_IP", "COLAB_RELEASE_TAG",
    "KAGGLE_IS_COMPETITION_RERUN", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE",
    "PAPERSPACE_CLUSTER_ID", "PAPERSPACE_FQDN", "PAPERSPACE_NOTEBOOK_REPO_ID",
    "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_CLUSTER_NAME", "SLURM_CPUS_PER_TASK",
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_LOCALID", "SLURM_MEM_PER_NODE",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_SUBMIT_DIR", "SLURM_TMPDIR",
    "SCRATCH", "TMPDIR",
    "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "GLIBC_TUNABLES", "MKL_NUM_THREADS", "OMP_NUM_THREADS",
    "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT",
    "LOCAL_WORLD_SIZE", "WORLD_SIZE", "WANDB_MODE",
)  # fmt: skip
"""Variables that are read and recorded. No other one ever is, so that no secret can slip in."""

DRIVES = ("/content/drive/MyDrive", "/content/gdrive/MyDrive")
INPUT = "/kaggle/input"
PATHS = (
    "/content", *DRIVES, INPUT, "/kaggle/working", "/storage", "/notebooks", "/home", "/home/jl_fs",
)  # fmt: skip

LASTING: dict[HostName, tuple[tuple[str, str], ...]] = {
    "kaggle": (("/kaggle/working", "/kaggle/working"),),
    "colab": (*((drive, f"{drive}/cellflow") for drive in DRIVES), ("/content", "/content")),
    "paperspace": (("/storage", "/storage/cellflow"),),
    "jarvislabs": (("/home/jl_fs", "/home/jl_fs/cellflow"), ("/home", "/home/cellflow")),
}
"""What outlives a session, best first, and the folder in it for results."""

DATA = "cellflow-data"
"""Name of a dataset folder unless people choose another."""

"""Where cellflow runs: a snapshot of the machine, the host it belongs to, what that host implies.

Only `take_snapshot` looks at the machine; the rest are pure functions of what it found. Hosts are recognised by
variables that their machines set and that people do not set elsewhere:

- Slurm sets ``SLURM_JOB_ID`` in every job, whatever image the job runs in.
- Kaggle sets ``KAGGLE_KERNEL_RUN_TYPE``. Its image is built on Colab's, so ``COLAB_RELEASE_TAG`` is set
  there too (github.com/Kaggle/kagglehub, pull request 230).
- Colab sets ``COLAB_RELEASE_TAG`` in its image, and more in a session. The image alone may run anywhere.
  ``/kaggle/input`` and a person's ``KAGGLE_KEY`` are found on Colab as well and prove nothing.
- Paperspace sets ``PAPERSPACE_NOTEBOOK_REPO_ID`` and ``PAPERSPACE_FQDN``; ``PAPERSPACE_API_KEY`` and
  ``PAPERSPACE_NOTEBOOK_ID`` are what people set on their laptop to start a notebook from there.
- JarvisLabs sets no variable of its own; a file system attached to an instance is ``/home/jl_fs``.

``CELLFLOW_HOST`` overrules all of them.
"""

from __future__ import annotations

from cellflow.environment.hosts import amp_type, detect_host, environment_record, host_defaults
from cellflow.environment.probe import take_snapshot

__all__ = ["amp_type", "detect_host", "environment_record", "host_defaults", "take_snapshot"]

"""What ``--amp auto`` comes to: the one rule, for training and for what `checks` and environment.json say."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["BFLOAT16_FLAGS", "AmpType", "auto_amp"]

BFLOAT16_CAPABILITY = 8
"""GPUs of this major compute capability and later compute in bfloat16."""
BFLOAT16_FLAGS = ("avx512_bf16", "amx_tile")
"""Flags of processors that compute in bfloat16."""


@dataclass(frozen=True)
class AmpType:
    """A kind of device, its type for mixed precision, and why."""

    device: Literal["cuda", "mps", "cpu"]
    type: Literal["bfloat16", "float16", "off"]
    reason: str


def auto_amp(
    device: str, *, capability: tuple[int, int] | None = None, cpu_flags: Collection[str] = ()
) -> AmpType:
    """Type for mixed precision on a kind of device.

    bfloat16 where the processor or GPU computes in it, float16 on other CUDA GPUs, and none elsewhere:
    emulated bfloat16 is slower than float32.

    Parameters
    ----------
    device : str
        "cuda", "mps" or "cpu".
    capability : tuple of int, optional
        Compute capability of a CUDA GPU, where it is known.
    cpu_flags : collection of str
        Flags of the processor, as ``/proc/cpuinfo`` names them.

    Examples
    --------
    >>> auto_amp("cuda", capability=(7, 5)).type
    'float16'
    >>> auto_amp("cpu", cpu_flags=["avx2", "avx512_bf16"]).type
    'bfloat16'
    """
    if device == "cuda":
        text = "unknown" if capability is None else ".".join(map(str, capability))
        if capability is not None and capability[0] >= BFLOAT16_CAPABILITY:
            return AmpType("cuda", "bfloat16", f"GPU of compute capability {text} computes in it")
        reason = f"GPU of compute capability {text}; bfloat16 needs {BFLOAT16_CAPABILITY}.0"
        return AmpType("cuda", "float16", reason)
    if device == "mps":
        return AmpType("mps", "off", "Apple's GPU: float32 throughout")
    for flag in BFLOAT16_FLAGS:
        if flag in cpu_flags:
            return AmpType("cpu", "bfloat16", f"the processor computes in it ({flag})")
    reason = f"the processor has neither {' nor '.join(BFLOAT16_FLAGS)}, and would emulate bfloat16"
    return AmpType("cpu", "off", reason)

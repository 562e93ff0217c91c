"""Devices and mixed precision."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from cellflow.amp import auto_amp
from cellflow.errors import ConfigError

__all__ = ["autocast", "choose_amp", "choose_device", "choose_layout", "set_layout"]


def choose_device(name: str) -> torch.device:
    """Device by name; `auto` takes a CUDA GPU, then Apple's, then the CPU.

    Raises
    ------
    ConfigError
        If the name is unknown or the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda", "mps")
    except RuntimeError:
        known = False
    if not known:
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps, found {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(
            f"--device {name}: this machine has {count} CUDA device(s). Try --device cpu."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: not available on this machine. Try --device cpu.")
    return device


def choose_amp(name: str, device: torch.device) -> torch.dtype | None:
    """Type for mixed precision, or None for float32 throughout; ``auto`` as `auto_amp` says.

    Raises
    ------
    ConfigError
        If it is float16 and the device no CUDA GPU.
    """
    if name == "float16" and device.type != "cuda":
        raise ConfigError(
            f"--amp float16 needs a CUDA GPU, found {device.type}. Use --amp bfloat16, auto or off."
        )
    if name == "auto":
        on_gpu = device.type == "cuda"
        capability = torch.cuda.get_device_capability(device) if on_gpu else None
        name = auto_amp(device.type, capability=capability, cpu_flags=_cpu_flags()).type
    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "off": None}[name]


def choose_layout(device: torch.device) -> torch.memory_format:
    """Layout of images and weights; channels-last is the faster one, but not on Apple's GPUs.

    Training and prediction use the same, because the last bits of the output depend on it.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def set_layout(net: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights of the convolutions out in memory."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def autocast(
    device: torch.device, amp: torch.dtype | None
) -> contextlib.AbstractContextManager[object]:
    """Context in which the network runs in mixed precision, or does not."""
    if amp is None:
        return contextlib.nullcontext()
    return torch.autocast(device_type=device.type, dtype=amp)


def _cpu_flags() -> list[str]:
    """Those of the processor's flags that torch knows and `auto_amp` asks for."""
    known = {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx_tile": torch.cpu._is_amx_tile_supported(),
    }
    return [flag for flag, is_there in known.items() if is_there]

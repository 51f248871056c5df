"""What a result was computed on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_GIB = 1 << 30


def hardware(device: str, threads: int) -> dict[str, Any]:
    """Return the processor, the memory and the device, ready for JSON.

    Args:
        device: the torch device that was used.
        threads: how many processor cores were used.
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": _device(device),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory() -> float | None:
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB, 1)


def _device(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"

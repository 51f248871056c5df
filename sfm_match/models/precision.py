"""Which number format a network runs in."""

from __future__ import annotations

from typing import Literal

import torch


def best_precision() -> Literal["bf16", "fp32"]:
    """Return `bf16` where this machine multiplies bfloat16 faster than float32, else `fp32`.

    What counts is its GPU if it has one, or else its CPU.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has = torch.cpu.get_capabilities()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "fp32"

"""Descriptors, their products in blocks of bounded memory, and the nearest neighbours among them.

Distances are those of unit descriptors, sqrt(2 - 2 cos).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

_BYTES_PER_UNIT = 512.0
# Rounding to bytes changes the norm of SIFT's descriptors by less than half of this.
_NORM_TOLERANCE = 0.01
_CHUNK = 64
# A block of products should stay in a core's cache; the result does not depend on it.
BLOCK_ROWS = 256


@dataclass(frozen=True)
class Descriptors:
    """Descriptors ready for matching.

    Attributes:
        values: (N, D), unit float32, or int8: byte-valued descriptors with 128 subtracted.
        offsets: int32 (N,), for int8: the product of two descriptors is that of the shifted
            values plus both offsets, as a.b = (a-128).(b-128) + 128 sum(a) + 128 sum(b) - 128^2 D.
    """

    values: Tensor
    offsets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor | slice) -> Descriptors:
        offsets = None if self.offsets is None else self.offsets[rows]
        return Descriptors(self.values[rows], offsets)

    def as_float(self) -> Descriptors:
        """Return the same descriptors as unit float32."""
        if self.offsets is None:
            return self
        return Descriptors(torch.nn.functional.normalize(self.values.float() + 128, dim=1))

    @property
    def cosine_per_product(self) -> float:
        """What a product of two descriptors has to be multiplied by to be their cosine."""
        return 1.0 if self.offsets is None else _BYTES_PER_UNIT**-2


@cache
def _int8_product_is_exact() -> bool:
    """Whether this processor multiplies int8 matrices without saturating (older ones do)."""
    if not hasattr(torch, "_int_mm"):
        return False
    extremes = torch.tensor([-128, 127], dtype=torch.int8)
    a = extremes[torch.arange(64 * 128).reshape(64, 128) // 3 % 2]
    b = extremes[torch.arange(128 * 64).reshape(128, 64) // 5 % 2]
    return bool(torch.equal(torch._int_mm(a, b).long(), a.long() @ b.long()))


def finite_or_zero(descriptors: Tensor) -> Tensor:
    """Return descriptors (N, D) as float32; those with a value that is not finite are zeros."""
    values = descriptors.float()
    finite = values.isfinite().all(dim=1, keepdim=True)
    return values if finite.all() else values.where(finite, 0.0)


def encode_descriptors(descriptors: Tensor) -> Descriptors:
    """Normalise descriptors (N, D); byte-valued ones on a CPU are multiplied as integers.

    SIFT's are bytes over 512, of norm 512 as near as bytes can be: their products are exact
    integers, and several times as fast. A descriptor that has a value which is not finite becomes
    zeros: it is like nothing, and keeps no other from its match.
    """
    values = finite_or_zero(descriptors)
    if values.device.type == "cpu" and len(values) and _int8_product_is_exact():
        scaled = values * _BYTES_PER_UNIT
        if _are_bytes(scaled):
            offsets = 128 * scaled.sum(dim=1).int() - 64 * 128 * values.shape[1]
            return Descriptors((scaled - 128).to(torch.int8), offsets)
    return Descriptors(torch.nn.functional.normalize(values, dim=1))


def _are_bytes(scaled: Tensor) -> bool:
    """Whether all descriptors (N, D) are bytes of norm 512."""
    norms = scaled.norm(dim=1) / _BYTES_PER_UNIT
    whole = (scaled == scaled.round()) & (scaled >= 0) & (scaled <= 255)
    return bool(whole.all() and ((norms - 1).abs() < _NORM_TOLERANCE).all())


def products(block: Descriptors, others: Descriptors, out: Tensor) -> Tensor:
    """Return the products (B, M) of a block with all others, in a buffer that is used again."""
    result = out[: len(block)]
    if block.offsets is None or others.offsets is None:
        return torch.mm(block.values, others.values.T, out=result)
    torch._int_mm(block.values, others.values.T, out=result)
    result += others.offsets
    result += block.offsets[:, None]
    return result


def argmax(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum of each row (B, M) and its column, the first where several are equal.

    Maxima of chunks first, which vectorise; then the index within the best chunk only.
    """
    num_chunks = rows.shape[1] // _CHUNK
    if num_chunks < 2:
        best, column = rows.max(dim=1)
        return best, column
    head = rows[:, : num_chunks * _CHUNK].view(len(rows), num_chunks, _CHUNK)
    chunk = head.amax(dim=2).argmax(dim=1)
    best, within = head[torch.arange(len(rows), device=rows.device), chunk].max(dim=1)
    column = chunk * _CHUNK + within
    tail = rows[:, num_chunks * _CHUNK :]
    if tail.shape[1]:
        tail_best, tail_column = tail.max(dim=1)
        better = tail_best > best
        best = torch.where(better, tail_best, best)
        column = torch.where(better, tail_column + num_chunks * _CHUNK, column)
    return best, column


def comparable(a: Descriptors, b: Descriptors) -> tuple[Descriptors, Descriptors]:
    """Return the descriptors of both images in one form: as integers only where both are."""
    if (a.offsets is None) != (b.offsets is None):
        return a.as_float(), b.as_float()
    return a, b


def distances(products: Tensor, cosine_per_product: float) -> Tensor:
    """Return the distances of unit descriptors, of any shape, from their products."""
    return (2 - 2 * cosine_per_product * products).clamp(0, 4).sqrt()


def lowest_product(descriptors: Descriptors) -> int:
    """Return a number below every product of two descriptors."""
    return -2 if descriptors.offsets is None else torch.iinfo(torch.int32).min


def k_nearest(
    rows: Descriptors, others: Descriptors, k: int, block_rows: int = BLOCK_ROWS
) -> tuple[Tensor, Tensor]:
    """Find the k nearest of the others for each row, exactly, the nearest first.

    Of several equal ones the first come first. Both must be of one form, see `comparable`.

    Returns:
        int64 (N, K), which they are, and (N, K), their products; K is k, or M if that is less.
    """
    num, k, device = len(rows), min(k, len(others)), rows.values.device
    lowest = lowest_product(rows)
    dtype = torch.float32 if rows.offsets is None else torch.int32
    out = torch.empty(min(block_rows, num), len(others), dtype=dtype, device=device)
    columns = torch.empty(num, k, dtype=torch.long, device=device)
    best = torch.empty(num, k, dtype=dtype, device=device)
    for start in range(0, num, block_rows):
        block = slice(start, min(start + block_rows, num))
        found = products(rows[block], others, out)
        for rank in range(k):
            best[block, rank], columns[block, rank] = argmax(found)
            found.scatter_(1, columns[block, rank, None], lowest)
    return columns, best

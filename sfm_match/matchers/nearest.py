"""Nearest neighbours by cosine, exact, in blocks of bounded memory.

Options: mutual neighbours only, Lowe's ratio test (IJCV 2004), a distance threshold. Distances are
those of unit descriptors, sqrt(2 - 2 cos). The ratio test holds on both sides when neighbours are
mutual: neither image plays a special part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.spec import Spec
from sfm_match.types import Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0"

_BYTES_PER_UNIT = 512.0
# Rounding to bytes changes the norm of SIFT's descriptors by less than half of this.
_NORM_TOLERANCE = 0.01
_CHUNK = 64
# A block of products should stay in a core's cache; the result does not depend on it.
_BLOCK_ROWS = 256


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `nearest`.

    Attributes:
        mutual: keep a match only where each is the other's nearest neighbour.
        ratio: keep a match only where its distance is below this share of the distance to the
            second nearest neighbour; 1 for no test.
        max_distance: keep a match only below this distance; 2, the largest there is, for no test.
    """

    mutual: bool = True
    ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_distance: Annotated[float, Field(gt=0, le=2)] = 2.0


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


def encode_descriptors(descriptors: Tensor) -> Descriptors:
    """Normalise descriptors (N, D); byte-valued ones on a CPU are multiplied as integers.

    SIFT's are bytes over 512, of norm 512 as near as bytes can be: their products are exact
    integers, and several times as fast.
    """
    values = descriptors.float()
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


def _products(block: Descriptors, others: Descriptors, out: Tensor) -> Tensor:
    """Return the products (B, M) of a block with all others, in a buffer that is used again."""
    products = out[: len(block)]
    if block.offsets is None or others.offsets is None:
        return torch.mm(block.values, others.values.T, out=products)
    torch._int_mm(block.values, others.values.T, out=products)
    products += others.offsets
    products += block.offsets[:, None]
    return products


def _argmax(rows: Tensor) -> tuple[Tensor, Tensor]:
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


@dataclass(frozen=True)
class _Neighbours:
    """The nearest neighbours of N descriptors among M others.

    Attributes:
        columns: (N,) which is the nearest.
        best: (N,) its product.
        second: (N,) the product of the second nearest; the lowest number where it was not sought.
        best_of_columns: (M,) the highest product of each of the others.
    """

    columns: Tensor
    best: Tensor
    second: Tensor
    best_of_columns: Tensor


def _neighbours(
    rows: Descriptors,
    others: Descriptors,
    block_rows: int,
    with_second: bool = False,
    exclude: Tensor | None = None,
) -> _Neighbours:
    """Scan all products once, block by block; column `exclude[i]` does not count for row i."""
    num, device = len(rows), rows.values.device
    dtype = torch.float32 if rows.offsets is None else torch.int32
    lowest = -2 if rows.offsets is None else torch.iinfo(torch.int32).min
    out = torch.empty(min(block_rows, num), len(others), dtype=dtype, device=device)
    columns = torch.empty(num, dtype=torch.long, device=device)
    best = torch.empty(num, dtype=dtype, device=device)
    second = torch.full((num,), lowest, dtype=dtype, device=device)
    best_of_columns = torch.full((len(others),), lowest, dtype=dtype, device=device)
    for start in range(0, num, block_rows):
        block = slice(start, min(start + block_rows, num))
        products = _products(rows[block], others, out)
        if exclude is not None:
            products.scatter_(1, exclude[block, None], lowest)
        best[block], columns[block] = _argmax(products)
        torch.maximum(best_of_columns, products.amax(dim=0), out=best_of_columns)
        if with_second:
            products.scatter_(1, columns[block, None], lowest)
            second[block] = products.amax(dim=1)
    return _Neighbours(columns, best, second, best_of_columns)


def match_descriptors(
    a: Descriptors, b: Descriptors, config: Config, block_rows: int = _BLOCK_ROWS
) -> tuple[Tensor, Tensor]:
    """Return the matched rows (M, 2) int64 and their cosines (M,), sorted by the row of a."""
    if (a.offsets is None) != (b.offsets is None):
        a, b = a.as_float(), b.as_float()
    ratio, to_cosine = config.ratio, a.cosine_per_product

    def distance(products: Tensor) -> Tensor:
        return (2 - 2 * to_cosine * products).clamp(0, 4).sqrt()

    found = _neighbours(a, b, block_rows, with_second=ratio < 1)
    keep = torch.ones(len(a), dtype=torch.bool, device=a.values.device)
    if config.mutual:
        keep &= found.best == found.best_of_columns[found.columns]
    if config.max_distance < 2:
        keep &= distance(found.best) < config.max_distance
    if ratio < 1:
        keep &= distance(found.best) < ratio * distance(found.second)
    rows = keep.nonzero()[:, 0]
    columns, best = found.columns[rows], found.best[rows]
    if ratio < 1 and config.mutual and len(rows):
        # Only the few columns that are left need their second neighbour.
        second = _neighbours(b[columns], a, block_rows, exclude=rows).best
        keep = distance(best) < ratio * distance(second)
        rows, columns, best = rows[keep], columns[keep], best[keep]
    if config.mutual:
        first = _first_of_equals(columns)
        rows, columns, best = rows[first], columns[first], best[first]
    return torch.stack([rows, columns], dim=1), best * to_cosine


def _first_of_equals(columns: Tensor) -> Tensor:
    """Return the first row of each column: identical descriptors are each other's equals."""
    _, first = np.unique(columns.cpu().numpy(), return_index=True)
    return torch.from_numpy(np.sort(first)).to(columns.device)


@dataclass(frozen=True)
class _Nearest:
    config: Config
    device: str

    def encode(self, view: View) -> Descriptors:
        assert view.features is not None
        descriptors = torch.from_numpy(view.features.descriptors)
        return encode_descriptors(descriptors.to(self.device))

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Descriptors, Descriptors]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: Descriptors, b: Descriptors) -> Matches:
        if len(a) == 0 or len(b) == 0:
            return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
        indices, cosines = match_descriptors(a, b, self.config)
        return Matches(indices.cpu().numpy().astype(np.int32), cosines.cpu().numpy())


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Descriptors, Matches]:
    """Return the matcher."""
    return _Nearest(config, device)

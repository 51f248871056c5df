"""Nearest neighbours by cosine, exact, in blocks of bounded memory.

Options: mutual neighbours only, Lowe's ratio test (IJCV 2004), a distance threshold. Distances are
those of unit descriptors, sqrt(2 - 2 cos). The ratio test holds on both sides when neighbours are
mutual: neither image plays a special part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor
from typing_extensions import Annotated

from sfm_match.spec import Spec
from sfm_match.types import Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = False
LICENCE = "Apache-2.0"

_BYTES_PER_UNIT = 512.0
_CHUNK = 64


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `nearest`.

    Attributes:
        mutual: keep a match only where each is the other's nearest neighbour.
        ratio: keep a match only where its distance is below this share of the distance to the
            second nearest neighbour; null for no test.
        max_distance: keep a match only below this distance (0 to 2); null for no test.
        block_rows: rows of the similarity matrix held at once; the result does not depend on it.
    """

    mutual: bool = True
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    max_distance: PositiveFloat | None = None
    block_rows: PositiveInt = 512


@dataclass(frozen=True)
class Descriptors:
    """Descriptors ready for matching.

    Attributes:
        values: (N, D), unit float32, or int8 of byte-valued descriptors with 128 subtracted.
        inverse_norms: float32 (N,), for int8 values only.
        offsets: int32 (N,), what restores a product from the shifted values, for int8 only.
    """

    values: Tensor
    inverse_norms: Tensor | None = None
    offsets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor | slice) -> Descriptors:
        if self.inverse_norms is None or self.offsets is None:
            return Descriptors(self.values[rows])
        return Descriptors(self.values[rows], self.inverse_norms[rows], self.offsets[rows])


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
    """Normalise descriptors (N, D); byte-valued ones on a CPU stay integers, which is faster.

    SIFT's are multiples of 1/512: their products are exact in integers, and the cosine follows
    from the norms.
    """
    values = descriptors.float()
    if values.device.type == "cpu" and len(values) and _int8_product_is_exact():
        scaled = values * _BYTES_PER_UNIT
        if bool(((scaled == scaled.round()) & (scaled >= 0) & (scaled <= 255)).all()):
            norms = scaled.norm(dim=1).clamp(min=1e-12)
            shifted = (scaled - 128).to(torch.int8)
            # a.b = (a-128).(b-128) + 128 (sum a + sum b) - 128^2 D, split between the two sides.
            offsets = 128 * scaled.sum(dim=1).int() - 64 * 128 * values.shape[1]
            return Descriptors(shifted, 1 / norms, offsets)
    return Descriptors(torch.nn.functional.normalize(values, dim=1))


def _similarity(block: Descriptors, others: Descriptors, out: Tensor, products: Tensor | None) -> Tensor:
    """Return the cosines (B, M) of a block with all others, in a buffer that is used again."""
    cosines = out[: len(block)]
    if products is None:
        return torch.mm(block.values, others.values.T, out=cosines)
    assert block.offsets is not None
    assert others.offsets is not None
    assert block.inverse_norms is not None
    assert others.inverse_norms is not None
    whole = products[: len(block)]
    torch._int_mm(block.values, others.values.T, out=whole)
    whole += others.offsets
    whole += block.offsets[:, None]
    torch.mul(whole, others.inverse_norms, out=cosines)
    return cosines.mul_(block.inverse_norms[:, None])


def _argmax(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum of each row (B, M) and its column, the first where several are equal.

    Maxima of chunks first, which vectorise; then the index within the best chunk only.
    """
    num_chunks = rows.shape[1] // _CHUNK
    if num_chunks < 2:
        best, column = rows.max(dim=1)
        return best, column
    head = rows[:, : num_chunks * _CHUNK].unflatten(1, (num_chunks, _CHUNK))
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
    """The nearest neighbours of the rows (N,), and the highest cosine of every column (M,)."""

    columns: Tensor
    best: Tensor
    second: Tensor
    best_of_columns: Tensor


def _neighbours(
    rows: Descriptors, others: Descriptors, config: Config, exclude: Tensor | None = None
) -> _Neighbours:
    """Scan all cosines once, block by block.

    Args:
        rows: N descriptors.
        others: M descriptors.
        config: the options.
        exclude: (N,) the column that does not count as a neighbour of each row.
    """
    num, device = len(rows), rows.values.device
    size = min(config.block_rows, num)
    out = torch.empty(size, len(others), device=device)
    whole = torch.empty(out.shape, dtype=torch.int32) if rows.offsets is not None else None
    columns = torch.empty(num, dtype=torch.long, device=device)
    best = torch.empty(num, device=device)
    second = torch.full((num,), -1.0, device=device)
    best_of_columns = torch.full((len(others),), -2.0, device=device)
    for start in range(0, num, size):
        block = slice(start, min(start + size, num))
        cosines = _similarity(rows[block], others, out, whole)
        if exclude is not None:
            cosines.scatter_(1, exclude[block, None], -2.0)
        best[block], columns[block] = _argmax(cosines)
        torch.maximum(best_of_columns, cosines.amax(dim=0), out=best_of_columns)
        if config.ratio is not None and exclude is None:
            cosines.scatter_(1, columns[block, None], -2.0)
            second[block] = cosines.amax(dim=1)
    return _Neighbours(columns, best, second, best_of_columns)


def _distance(cosine: Tensor) -> Tensor:
    return (2 - 2 * cosine).clamp(min=0).sqrt()


def match_descriptors(a: Descriptors, b: Descriptors, config: Config) -> tuple[Tensor, Tensor]:
    """Return the matched rows (M, 2) int64 and their cosines (M,), sorted by the row of a."""
    found = _neighbours(a, b, config)
    keep = torch.ones(len(a), dtype=torch.bool, device=a.values.device)
    if config.mutual:
        keep &= found.best == found.best_of_columns[found.columns]
    if config.max_distance is not None:
        keep &= _distance(found.best) < config.max_distance
    if config.ratio is not None:
        keep &= _distance(found.best) < config.ratio * _distance(found.second)
    rows = keep.nonzero()[:, 0]
    columns, cosines = found.columns[rows], found.best[rows]
    if config.ratio is not None and config.mutual and len(rows):
        second = _neighbours(b[columns], a, config, exclude=rows).best
        keep = _distance(cosines) < config.ratio * _distance(second)
        rows, columns, cosines = rows[keep], columns[keep], cosines[keep]
    if config.mutual:
        rows, columns, cosines = _first_of_equals(rows, columns, cosines)
    return torch.stack([rows, columns], dim=1), cosines


def _first_of_equals(rows: Tensor, columns: Tensor, cosines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep one row for each column: identical descriptors have the same cosine to a neighbour."""
    _, first = np.unique(columns.cpu().numpy(), return_index=True)
    keep = torch.from_numpy(np.sort(first)).to(rows.device)
    return rows[keep], columns[keep], cosines[keep]


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

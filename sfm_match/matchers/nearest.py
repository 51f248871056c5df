"""Nearest neighbours by cosine, exact, in blocks of bounded memory.

Options: mutual neighbours only, Lowe's ratio test (IJCV 2004), a distance threshold. Distances are
those of unit descriptors, sqrt(2 - 2 cos). The ratio test holds on both sides when neighbours are
mutual: neither image plays a special part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.models.descriptors import (
    BLOCK_ROWS,
    Descriptors,
    argmax,
    comparable,
    distances,
    encode_descriptors,
    lowest_product,
    products,
)
from sfm_match.spec import Spec
from sfm_match.types import Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0"


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
    lowest = lowest_product(rows)
    out = torch.empty(min(block_rows, num), len(others), dtype=dtype, device=device)
    columns = torch.empty(num, dtype=torch.long, device=device)
    best = torch.empty(num, dtype=dtype, device=device)
    second = torch.full((num,), lowest, dtype=dtype, device=device)
    best_of_columns = torch.full((len(others),), lowest, dtype=dtype, device=device)
    for start in range(0, num, block_rows):
        block = slice(start, min(start + block_rows, num))
        found = products(rows[block], others, out)
        if exclude is not None:
            found.scatter_(1, exclude[block, None], lowest)
        best[block], columns[block] = argmax(found)
        torch.maximum(best_of_columns, found.amax(dim=0), out=best_of_columns)
        if with_second:
            found.scatter_(1, columns[block, None], lowest)
            second[block] = found.amax(dim=1)
    return _Neighbours(columns, best, second, best_of_columns)


def match_descriptors(
    a: Descriptors, b: Descriptors, config: Config, block_rows: int = BLOCK_ROWS
) -> tuple[Tensor, Tensor]:
    """Return the matched rows (M, 2) int64 and their cosines (M,), sorted by the row of a."""
    a, b = comparable(a, b)
    ratio, to_cosine = config.ratio, a.cosine_per_product

    def distance(found: Tensor) -> Tensor:
        return distances(found, to_cosine)

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

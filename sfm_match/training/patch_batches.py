"""Batches of patches for MatchNet, drawn from a pool of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sfm_match.spec import ConfigError
from sfm_match.training.matchnet import PatchBatch
from sfm_match.training.patch_pairs import DIFFERENT, PatchPairs
from sfm_match.types import ArrayBool, ArrayF32


@dataclass(frozen=True)
class Draw:
    """How batches are drawn.

    Attributes:
        batch: pairs of patches of the same, two or more; as many pairs of different ones are made
            of them.
        together: the most pairs that are drawn from the same two pictures.
        relight: standard deviation by which the contrast of a patch changes, as a logarithm, and
            its brightness, as a share of 128.
    """

    batch: int = 64
    together: int = 16
    relight: float = 0.1


def draw_batch(pool: PatchPairs, draw: Draw, seed: int, number: int) -> PatchBatch:
    """Return a batch that depends on nothing but the pool, the seed and its number.

    Half of the pairs are mirrored, which makes patches of a mirrored world.

    Args:
        pool: sorted by `pictures`, and checked.
        draw: how.
        seed: of the training.
        number: of the batch, from 0.
    """
    rng = np.random.default_rng([seed, number])
    chosen = pool[_rows(rng, pool["pictures"], draw)]
    different, together = different_pairs(chosen)
    others = np.array([rng.choice(np.flatnonzero(row)) for row in different], np.int64)
    return PatchBatch(
        torch.from_numpy(_relit(rng, chosen["patches"], draw.relight)).movedim(1, 0)[:, :, None],
        torch.from_numpy(different),
        torch.from_numpy(together),
        torch.from_numpy(others),
    )


def different_pairs(records: PatchPairs) -> tuple[ArrayBool, ArrayBool]:
    """Return which first patches differ from which second ones, and which share their pictures.

    Patches of other pictures are different. It is not checked whether two pictures, warped from one
    photograph or views of one room, happen to show the same there.

    Returns:
        `different` and `together` of `PatchBatch`, as arrays (N, N).
    """
    pictures = records["pictures"]
    together = pictures[:, None] == pictures[None]
    apart = np.ones_like(together)
    for side in (0, 1):
        places, sides = records["places"][:, side], records["sides"][:, side]
        distances = np.linalg.norm(places[:, None] - places[None], axis=2)
        apart &= distances > DIFFERENT * np.maximum(sides[:, None], sides[None])
    return np.asarray(~together | apart, np.bool_), np.asarray(together, np.bool_)


def check_pool(pool: PatchPairs, draw: Draw) -> None:
    """Check that batches can be drawn from a pool.

    Raises:
        ConfigError: it has too few pairs of patches.
    """
    counts = np.unique(pool["pictures"], return_counts=True)[1]
    num = int(np.minimum(counts, _most_together(draw)).sum())
    if num < draw.batch:
        raise ConfigError(
            f"{len(pool)} pairs of patches of {len(counts)} pairs of pictures were found, which is "
            f"too few for a batch of {draw.batch}, with at most {_most_together(draw)} of the same "
            "pictures; take more pictures, or ones with more to see, or a smaller batch"
        )


def _most_together(draw: Draw) -> int:
    # No pictures may fill a batch alone: there might be nothing that is different.
    return min(draw.together, draw.batch // 2)


def _rows(
    rng: np.random.Generator, pictures: npt.NDArray[np.int64], draw: Draw
) -> npt.NDArray[np.intp]:
    """Return the rows of a batch: some of each of a few pairs of pictures."""
    found, first = np.unique(pictures, return_index=True)
    last = np.append(first[1:], len(pictures))
    chosen: list[npt.NDArray[np.intp]] = []
    missing = draw.batch
    for one in rng.permutation(len(found)):
        num = min(last[one] - first[one], _most_together(draw), missing)
        chosen.append(rng.choice(np.arange(first[one], last[one]), num, replace=False))
        missing -= num
        if missing == 0:
            break
    return np.concatenate(chosen)


def _relit(rng: np.random.Generator, patches: npt.NDArray[np.uint8], relight: float) -> ArrayF32:
    """Return patches (N, 2, 64, 64) with other contrast and brightness, half the pairs mirrored."""
    values = patches.astype(np.float32)
    mirrored = rng.random(len(values)) < 0.5
    values[mirrored] = values[mirrored, :, ::-1]
    shape = (len(values), 2, 1, 1)
    contrast = np.exp(rng.normal(0, relight, shape)).astype(np.float32)
    brightness = rng.normal(0, 128 * relight, shape).astype(np.float32)
    means = values.mean(axis=(2, 3), keepdims=True)
    relit: ArrayF32 = ((values - means) * contrast + means + brightness).clip(0, 255)
    return relit

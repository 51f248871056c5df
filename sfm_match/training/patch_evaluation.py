"""How well patches of the same are told from patches of different things.

The measure is Winder and Brown's ("Learning Local Image Descriptors", CVPR 2007) and MatchNet's:
the share of pairs of different patches that are taken for the same at the threshold at which 95
percent of the pairs of the same are.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from sfm_match.models.matchnet import MatchNet, normalised
from sfm_match.models.matchnet_metric import match_odds, project
from sfm_match.training.patch_batches import different_pairs
from sfm_match.training.patch_pairs import PatchPairs
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64

_DESCRIBED_AT_ONCE = 32


def false_positive_rate(scores: ArrayF64, is_match: ArrayBool, recall: float = 0.95) -> float:
    """Return the share of wrong pairs whose score reaches what a share of the right ones reach.

    Args:
        scores: (N,), higher for what looks more like a match.
        is_match: bool (N,), with both kinds in it.
        recall: the share of the matches, above 0.
    """
    matches = np.sort(scores[is_match])[::-1]
    # 0.95 of 20 is 19, whatever the last bit of the product.
    num = max(1, math.ceil(recall * len(matches) - 1e-9))
    return float((scores[~is_match] >= matches[num - 1]).mean())


def evaluate_matchnet(network: MatchNet, records: PatchPairs, seed: int) -> dict[str, float]:
    """Return figures of a network, and of the detector's own descriptors, on the same pairs.

    Args:
        network: of any training.
        records: that it has not seen, sorted by `pictures`, of two or more of them.
        seed: of the pairs of different patches, as many as there are of the same.

    Returns:
        false positive rates at 95 percent recall. `fpr95`: different patches are any. `near_fpr95`:
        they are of the same two pictures. `detector_...`: by the distance of the descriptors that
        the detector makes. Where no two pairs are of the same pictures, there is no `near_...`.
    """
    descriptors = _described(network, records["patches"])
    rng = np.random.default_rng([seed, len(records)])
    different, together = different_pairs(records)
    found: dict[str, float] = {}
    for name, allowed in (("", different), ("near_", different & together)):
        rows = np.flatnonzero(allowed.any(axis=1))
        if len(rows) == 0:
            continue
        others = np.array([rng.choice(np.flatnonzero(allowed[row])) for row in rows], np.int64)
        pairs = np.stack([np.tile(rows, 2), np.concatenate([rows, others])], axis=1)
        is_match = np.arange(len(pairs)) < len(rows)
        scores = _odds(network, descriptors, pairs), _closeness(records["descriptors"], pairs)
        found[f"{name}fpr95"], found[f"detector_{name}fpr95"] = (
            false_positive_rate(of_one, is_match) for of_one in scores
        )
    return found


@torch.inference_mode()
def _described(network: MatchNet, patches: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return the descriptors (N, 2, F) of patches (N, 2, 64, 64)."""
    values = torch.from_numpy(patches.reshape(-1, 1, *patches.shape[2:])).float()
    blocks = torch.split(normalised(values), _DESCRIBED_AT_ONCE)
    return torch.cat([network.tower(block) for block in blocks]).view(len(patches), 2, -1)


@torch.inference_mode()
def _odds(network: MatchNet, descriptors: torch.Tensor, pairs: npt.NDArray[np.int64]) -> ArrayF64:
    a, b = (project(network.metric, side.contiguous()) for side in descriptors.unbind(1))
    odds: ArrayF64 = match_odds(network.metric, a, b, torch.from_numpy(pairs)).double().numpy()
    return odds


def _closeness(descriptors: npt.NDArray[np.float16], pairs: npt.NDArray[np.int64]) -> ArrayF64:
    values: ArrayF32 = descriptors.astype(np.float32)
    differences = values[pairs[:, 0], 0] - values[pairs[:, 1], 1]
    distances: ArrayF64 = np.linalg.norm(differences, axis=1).astype(np.float64)
    return -distances

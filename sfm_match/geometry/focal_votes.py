"""Focal lengths from fundamental matrices: what the epipolar geometry says of a calibration.

With the right focal lengths ``E = K1^T F K0`` has two equal singular values (Huang and Faugeras,
"Some properties of the E matrix in two-view motion estimation", PAMI 1989). A single pair says
little where its optical axes meet or are parallel; many pairs together say much (Sweeney et al.,
"Optimizing the viewing graph for structure-from-motion", ICCV 2015, calibrate all cameras of a
view graph like this).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.types import ArrayF64

FACTORS = np.geomspace(0.4, 2.5, 61)
"""The factors to a focal length that are tried."""

_MAX_RESIDUAL = 0.2  # of a pair, so that a false one says no more than that
_SWEEPS = 5
_NEAR = 1.2


@dataclass(frozen=True, eq=False)
class FocalVotes:
    """What pairs say of the focal lengths of C cameras.

    Attributes:
        factors: float64 (C,), by which to multiply them, one of `FACTORS`.
        residuals: float64 (C,), how far from 1 the ratio of the singular values of the camera's
            pairs is on average, with these factors.
        prior_residuals: float64 (C,), the same without the camera's own factor.
        near_residuals: float64 (C,), the same with factors a fifth smaller or larger, the better of
            the two: where it is no worse, the pairs do not say much.
        num_pairs: int64 (C,), how many pairs a camera has.
    """

    factors: ArrayF64
    residuals: ArrayF64
    prior_residuals: ArrayF64
    near_residuals: ArrayF64
    num_pairs: npt.NDArray[np.int64]


def estimate_fundamental(points0: ArrayF64, points1: ArrayF64) -> ArrayF64 | None:
    """Return the fundamental matrix (3, 3) of points (M, 2) in pixels, None where nothing fits."""
    options = pycolmap.RANSACOptions(
        max_error=2.0, random_seed=0, min_num_trials=100, max_num_trials=2000, confidence=0.999
    )
    found = pycolmap.estimate_fundamental_matrix(points0, points1, options)
    return None if found is None else np.asarray(found["F"], np.float64)


def vote_focals(F: ArrayF64, K: ArrayF64, cameras: npt.NDArray[np.int64]) -> FocalVotes:
    """Find the focal lengths that make the pairs' essential matrices as good as they can be.

    First one factor for all cameras, then one for each in turn.

    Args:
        F: float64 (P, 3, 3), fundamental matrices in pixels, of rank 2.
        K: float64 (C, 3, 3), the calibration matrices.
        cameras: int64 (P, 2), the cameras of the two images of each pair.
    """
    E = np.swapaxes(K[cameras[:, 1]], 1, 2) @ F @ K[cameras[:, 0]]
    num = len(K)
    common = [_cost(E, np.full((len(E), 2), factor)) for factor in FACTORS]
    factors = np.full(num, FACTORS[int(np.argmin(common))])
    pairs_of = [np.flatnonzero((cameras == camera).any(axis=1)) for camera in range(num)]
    for _ in range(_SWEEPS):
        before = factors.copy()
        for camera in range(num):
            if len(pairs_of[camera]):
                costs = [_cost_of(camera, f, E, factors, cameras, pairs_of) for f in FACTORS]
                factors[camera] = FACTORS[int(np.argmin(costs))]
        if np.array_equal(before, factors):
            break

    def residuals(own: ArrayF64) -> ArrayF64:
        """Return the residual of each camera, were its own factor this one."""
        each = enumerate(own)
        return np.array([_cost_of(c, f, E, factors, cameras, pairs_of) for c, f in each])

    return FocalVotes(
        factors=factors,
        residuals=residuals(factors),
        prior_residuals=residuals(np.ones(num)),
        near_residuals=np.minimum(residuals(factors / _NEAR), residuals(factors * _NEAR)),
        num_pairs=np.array([len(pairs) for pairs in pairs_of], np.int64),
    )


def _cost_of(
    camera: int,
    factor: float,
    E: ArrayF64,
    factors: ArrayF64,
    cameras: npt.NDArray[np.int64],
    pairs_of: list[npt.NDArray[np.intp]],
) -> float:
    """Return the mean residual of a camera's pairs, had it this factor."""
    pairs = pairs_of[camera]
    own = cameras[pairs] == camera
    return _cost(E[pairs], np.where(own, factor, factors[cameras[pairs]]))


def _cost(E: ArrayF64, factors: ArrayF64) -> float:
    """Return the mean residual of essential matrices (P, 3, 3), with factors (P, 2)."""
    if not len(E):
        return 0.0
    diagonal = np.repeat(factors[:, :, None], 3, axis=2)
    diagonal[:, :, 2] = 1.0
    scaled = diagonal[:, 1, :, None] * E * diagonal[:, 0, None, :]
    return float(np.minimum(_residuals(scaled), _MAX_RESIDUAL).mean())


def _residuals(E: ArrayF64) -> ArrayF64:
    """Return 1 less the ratio of the two singular values of matrices (P, 3, 3) of rank 2."""
    # With S = E^T E: their squares have the sum tr S and the product (tr^2 S - tr S^2) / 2.
    S = np.swapaxes(E, 1, 2) @ E
    total = np.trace(S, axis1=1, axis2=2)
    product = (total**2 - np.sum(S * S, axis=(1, 2))) / 2
    root = np.sqrt(np.maximum(total**2 - 4 * product, 0))
    return np.asarray(1 - np.sqrt(np.maximum(total - root, 0) / (total + root)))

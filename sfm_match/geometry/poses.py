"""Rigid poses, their errors, the area under the recall curve, and similarity alignment.

A pose ``b_from_a`` is a float64 array (..., 3, 4), ``[R | t]`` with ``x_b = R x_a + t``; leading
axes broadcast. Angles are in degrees. Nothing here depends on pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayF64

# Below this ratio of the second to the first singular value of the cross-covariance, the points of
# one side lie on a line up to rounding, and the rotation about that line is arbitrary.
_MIN_RANK_RATIO = 1e-10
# Below this ratio of their spread to their coordinates, points differ by rounding only.
_MIN_SPREAD_RATIO = 1e-12


def compose(c_from_b: ArrayF64, b_from_a: ArrayF64) -> ArrayF64:
    """Return ``c_from_a`` float64 (..., 3, 4), the second pose followed by the first."""
    rotation = c_from_b[..., :3] @ b_from_a[..., :3]
    translation = c_from_b[..., :3] @ b_from_a[..., 3:] + c_from_b[..., 3:]
    return np.concatenate([rotation, translation], axis=-1)


def inverse(b_from_a: ArrayF64) -> ArrayF64:
    """Return ``a_from_b`` float64 (..., 3, 4)."""
    rotation = np.swapaxes(b_from_a[..., :3], -1, -2)
    return np.concatenate([rotation, -rotation @ b_from_a[..., 3:]], axis=-1)


def relative_pose(a_from_world: ArrayF64, b_from_world: ArrayF64) -> ArrayF64:
    """Return ``b_from_a`` float64 (..., 3, 4) of two cameras given in one world frame.

    The translation comes out in the world's units; for cameras at one place it is zero only up to
    rounding.
    """
    return compose(b_from_world, inverse(a_from_world))


def projection_centers(cam_from_world: ArrayF64) -> ArrayF64:
    """Return the cameras' positions in the world, float64 (..., 3)."""
    return inverse(cam_from_world)[..., 3]


def rotation_error(rotations0: ArrayF64, rotations1: ArrayF64) -> ArrayF64:
    """Return the angle of the rotation between two rotations, in degrees from 0 to 180.

    The sine comes from the skew part of ``R0 R1^T`` and the cosine from its trace. Their arctangent
    keeps full precision at 0 and at 180 degrees, where an arccosine of the trace has lost half of
    its digits.

    Args:
        rotations0: float64 (..., 3, 3).
        rotations1: float64 (..., 3, 3).

    Returns:
        float64 (...).
    """
    delta = rotations0 @ np.swapaxes(rotations1, -1, -2)
    twice_axis_sine = np.stack(
        [
            delta[..., 2, 1] - delta[..., 1, 2],
            delta[..., 0, 2] - delta[..., 2, 0],
            delta[..., 1, 0] - delta[..., 0, 1],
        ],
        axis=-1,
    )
    twice_sine = np.linalg.norm(twice_axis_sine, axis=-1)
    twice_cosine = np.trace(delta, axis1=-2, axis2=-1) - 1
    return np.asarray(np.rad2deg(np.arctan2(twice_sine, twice_cosine)))


def direction_error(
    directions0: ArrayF64, directions1: ArrayF64, *, sign_ambiguous: bool = False
) -> ArrayF64:
    """Return the angle between two directions, in degrees.

    Args:
        directions0: float64 (..., 3), of any length but zero.
        directions1: float64 (..., 3), of any length but zero.
        sign_ambiguous: The directions are known only up to their sign, as is the translation of an
            essential matrix: the angle is then the one between the lines, from 0 to 90 degrees, as
            in the evaluation of SuperGlue and LoFTR.

    Returns:
        float64 (...), from 0 to 180; 0 where a direction has zero length.
    """
    sine = np.linalg.norm(np.cross(directions0, directions1), axis=-1)
    cosine = np.sum(directions0 * directions1, axis=-1)
    if sign_ambiguous:
        cosine = np.abs(cosine)
    return np.asarray(np.rad2deg(np.arctan2(sine, cosine)))


def pose_error(estimated: ArrayF64, true: ArrayF64, *, sign_ambiguous: bool = False) -> ArrayF64:
    """Return the larger of the rotation error and the translation direction's error, in degrees.

    That is the error of a relative pose in the field (Yi et al., "Learning to Find Good
    Correspondences", CVPR 2018). Where the true translation is exactly zero it has no direction,
    and the error is that of the rotation alone. Where only the estimated one is exactly zero, the
    direction was not found and counts as wrong as can be (180 degrees, 90 if sign-ambiguous).
    Callers set translations that are zero up to rounding to zero beforehand.

    Args:
        estimated: ``b_from_a``, float64 (..., 3, 4), its translation in any unit.
        true: ``b_from_a``, float64 (..., 3, 4), its translation in any unit.
        sign_ambiguous: The sign of the estimated translation is arbitrary; see `direction_error`.

    Returns:
        float64 (...).
    """
    translation_error = direction_error(
        estimated[..., 3], true[..., 3], sign_ambiguous=sign_ambiguous
    )
    worst = 90.0 if sign_ambiguous else 180.0
    translation_error = np.where(np.any(estimated[..., 3], axis=-1), translation_error, worst)
    translation_error = np.where(np.any(true[..., 3], axis=-1), translation_error, 0.0)
    return np.maximum(rotation_error(estimated[..., :3], true[..., :3]), translation_error)


def auc(errors: npt.ArrayLike, thresholds: npt.ArrayLike) -> ArrayF64:
    """Return the normalised area under the recall curve up to each threshold, in percent.

    The definition is that of SuperGlue (Sarlin et al., CVPR 2020), used by LoFTR and its
    successors. With the n errors sorted, the curve runs linearly through (0, 0) and the points
    (e_i, i / n). Up to a threshold T only errors strictly below T count; from the last of them to
    T the curve stays level. The area under it from 0 to T is divided by T. The area is exact: it is
    not sampled and not binned.

    Args:
        errors: (N,), at least one, not negative; infinity (or any value of at least the largest
            threshold) stands for a failure.
        thresholds: (T,), positive and finite.

    Returns:
        float64 (T,), from 0 to 100.

    Raises:
        ValueError: There are no errors, or one is negative or not a number, or a threshold is not
            positive and finite.
    """
    errors = np.asarray(errors, dtype=np.float64)
    limits = np.asarray(thresholds, dtype=np.float64)
    if errors.ndim != 1 or errors.size == 0:
        raise ValueError(f"errors must be (N,) with at least one value, got {errors.shape}")
    if not (errors >= 0).all():
        bad = errors[~(errors >= 0)][0]
        raise ValueError(f"errors must not be negative or NaN, got {bad}")
    if limits.ndim != 1 or not (np.isfinite(limits) & (limits > 0)).all():
        raise ValueError(f"thresholds must be (T,), positive and finite, got {limits}")
    if limits.size == 0:
        return np.zeros(0)
    # What lies beyond every threshold only has to stay beyond it; finite values keep sums finite.
    x = np.concatenate([[0.0], np.sort(np.minimum(errors, limits.max()))])
    recall = np.arange(len(x)) / errors.size
    areas = np.concatenate([[0.0], np.cumsum(np.diff(x) * (recall[1:] + recall[:-1]) / 2)])
    last = np.searchsorted(x, limits, side="left") - 1
    return np.asarray(100 * (areas[last] + recall[last] * (limits - x[last])) / limits)


class Similarity(NamedTuple):
    """A similarity transform (Sim3), ``x_target = scale * rotation @ x_source + translation``."""

    scale: float
    """Positive."""
    rotation: ArrayF64
    """float64 (3, 3)."""
    translation: ArrayF64
    """float64 (3,), in the target's units."""


class DegenerateAlignmentError(ValueError):
    """The points do not determine a similarity transform; the message says why."""


def align_points(source: ArrayF64, target: ArrayF64) -> Similarity:
    """Return the similarity ``target_from_source`` with the least sum of squared distances.

    The closed form of Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two
    Point Patterns", PAMI 1991. Every point counts the same: one gross outlier moves the result.

    Args:
        source: float64 (N, 3).
        target: float64 (N, 3), the corresponding points.

    Raises:
        DegenerateAlignmentError: There are fewer than three points, or those of one side coincide,
            or they lie on a line.
    """
    if len(source) < 3:
        raise DegenerateAlignmentError(
            f"an alignment needs at least 3 points in common, got {len(source)}"
        )
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_rest, target_rest = source - source_mean, target - target_mean
    for side, points, rest in (("source", source, source_rest), ("target", target, target_rest)):
        if np.abs(rest).max() <= _MIN_SPREAD_RATIO * np.abs(points).max():
            raise DegenerateAlignmentError(f"all {len(points)} points of the {side} coincide")
    # Units of the order of one: the products below neither overflow nor vanish.
    source_size, target_size = np.linalg.norm(source_rest), np.linalg.norm(target_rest)
    covariance = (target_rest / target_size).T @ (source_rest / source_size)
    u, singular, vt = np.linalg.svd(covariance)
    if singular[1] <= _MIN_RANK_RATIO * singular[0]:
        raise DegenerateAlignmentError(
            f"the {len(source)} points lie on a line (or do not correspond at all), so the "
            "rotation about it is arbitrary"
        )
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    scale = float(np.sum(singular * signs) * target_size / source_size)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def transform_poses(target_from_source: Similarity, cam_from_source: ArrayF64) -> ArrayF64:
    """Return ``cam_from_target`` float64 (..., 3, 4): the cameras in the other world frame.

    The cameras' own frames take on the target's unit of length.
    """
    scale, rotation, translation = target_from_source
    rotations = cam_from_source[..., :3] @ rotation.T
    translations = scale * cam_from_source[..., 3] - rotations @ translation
    return np.concatenate([rotations, translations[..., None]], axis=-1)

"""Two-view geometry of matched keypoints, as COLMAP estimates and classifies it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.types import ArrayF32, ArrayF64, Matches, TwoView, TwoViewConfig


def estimate_two_view(
    camera0: pycolmap.Camera,
    keypoints0: ArrayF32,
    camera1: pycolmap.Camera,
    keypoints1: ArrayF32,
    matches: Matches,
    options: pycolmap.TwoViewGeometryOptions,
) -> TwoView:
    """Estimate and classify the geometry of a pair by LO-RANSAC.

    Where both cameras have a prior focal length the essential matrix is estimated, else the
    fundamental matrix; planar and panoramic pairs are told apart (Schoenberger and Frahm,
    "Structure-from-Motion Revisited", CVPR 2016). Releases the interpreter's lock.

    Args:
        camera0: camera of the first image.
        keypoints0: (N0, 2) pixels.
        camera1: camera of the second image.
        keypoints1: (N1, 2) pixels.
        matches: M matches.
        options: pycolmap's options; a fixed random seed makes the result reproducible.
    """
    found = pycolmap.estimate_two_view_geometry(
        camera0,
        keypoints0.astype(np.float64),
        camera1,
        keypoints1.astype(np.float64),
        matches.indices.astype(np.uint32),
        options,
    )
    inliers = np.isin(_codes(matches.indices), _codes(found.inlier_matches))
    pose = found.cam2_from_cam1
    return TwoView(
        config=TwoViewConfig(found.config),
        inliers=inliers,
        cam1_from_cam0=None if pose is None or not inliers.any() else _unit_baseline(pose),
        E=_finite(found.E),
        F=_finite(found.F),
        H=_finite(found.H),
    )


def _codes(indices: npt.NDArray[np.int32] | npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return one number for each pair of rows (M, 2)."""
    wide = indices.astype(np.int64)
    codes: npt.NDArray[np.int64] = wide[:, 0] << 32 | wide[:, 1]
    return codes


def _unit_baseline(pose: pycolmap.Rigid3d) -> ArrayF64 | None:
    """Return the pose (3, 4) with a translation of length 1; COLMAP's is another from a plane."""
    matrix = _finite(pose.matrix())
    if matrix is not None and matrix[:, 3].any():
        matrix[:, 3] /= np.linalg.norm(matrix[:, 3])
    return matrix


def _finite(matrix: npt.NDArray[np.float64] | None) -> ArrayF64 | None:
    """Return the matrix, or None for one that the estimator left undefined."""
    return None if matrix is None or not np.isfinite(matrix).all() else np.array(matrix)

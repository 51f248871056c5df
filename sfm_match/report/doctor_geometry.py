"""Findings on the two-view geometries: what they lack, where to begin, whether they agree."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from sfm_match.geometry.match_graph import cycle_errors, triangles
from sfm_match.geometry.parallax import Parallax, parallax
from sfm_match.report.doctor_access import PairReader
from sfm_match.report.doctor_tables import ArrayInt, Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Place, Severity, count
from sfm_match.types import ArrayF64, TwoViewConfig

_PLANAR = (TwoViewConfig.PLANAR, TwoViewConfig.PANORAMIC, TwoViewConfig.PLANAR_OR_PANORAMIC)
_GENERAL = (TwoViewConfig.CALIBRATED, TwoViewConfig.UNCALIBRATED)
_VERIFY = "verify again with this package (sfm-match import adds a geometry to each pair)"
_WIDER = (
    "pictures from places further apart, to the side and not only forward; matches over wider "
    "baselines (--pairs exhaustive, --recipe aliked)"
)
_INLIERS_FOR_POSE = 100


def examine_geometries(
    found: Survey, reader: PairReader, doubtful: Collection[int], limits: Thresholds
) -> Iterator[Finding]:
    """Yield what is wrong with the two-view geometries.

    Args:
        found: what the database holds.
        reader: reads its pairs.
        doubtful: ids of cameras whose focal length cannot be trusted for poses.
        limits: where to draw the lines.
    """
    yield from _without_config(found, limits)
    yield from _without_matrix(found, limits)
    yield from _no_initial_pair(found, reader, limits)
    yield from _open_cycles(found, reader, doubtful, limits)


def _without_config(found: Survey, limits: Thresholds) -> Iterator[Finding]:
    pairs = found.pairs
    linking = pairs.num_inliers >= limits.min_inliers
    rows = np.flatnonzero(linking & (pairs.config <= TwoViewConfig.DEGENERATE))
    if len(rows):
        every = len(rows) == np.count_nonzero(linking)
        yield Finding(
            Severity.PROBLEM if every else Severity.WARNING,
            "geometry-without-config",
            f"{len(rows)} of {count(np.count_nonzero(linking), 'verified pair')} with inliers, but "
            "without a class of geometry (config is undefined or degenerate): COLMAP's mappers "
            "leave them out",
            _pairs(found, rows),
            f"{_VERIFY}; or set config to 2 (known focal length) or 3",
        )


def _without_matrix(found: Survey, limits: Thresholds) -> Iterator[Finding]:
    pairs = found.pairs
    bare = (pairs.num_inliers >= limits.min_inliers) & (pairs.config > TwoViewConfig.DEGENERATE)
    bare &= ~pairs.has_matrix & np.isnan(pairs.poses).any(axis=(1, 2))
    if bare.any():
        yield Finding(
            Severity.NOTE,
            "geometry-without-pose",
            f"{count(np.count_nonzero(bare), 'verified pair')} without a matrix or a pose: nothing "
            "says that the inliers were verified, and other global mappers cannot use them",
            _pairs(found, np.flatnonzero(bare)),
            _VERIFY,
        )


def _no_initial_pair(found: Survey, reader: PairReader, limits: Thresholds) -> Iterator[Finding]:
    """Yield why the incremental mapper finds no pair, or only a doubtful one, to begin with."""
    pairs = found.pairs
    usable = reader.readable & (pairs.config > TwoViewConfig.DEGENERATE)
    if not usable.any():
        return
    most = int(pairs.num_inliers[usable].max())
    candidates = np.flatnonzero(usable & (pairs.num_inliers >= limits.init_min_inliers))
    if not len(candidates):
        yield Finding(
            Severity.PROBLEM,
            "no-initial-pair",
            f"no pair has the {limits.init_min_inliers} inliers that one to begin with needs at "
            f"the least; the best has {most}",
            (),
            "other features or a denser matcher (--recipe aliked, r2d2, loftr), more keypoints "
            "(-o features.max_keypoints=8192), or -o mapper.mapper.init_min_num_inliers=50",
        )
        return
    best = candidates[np.argsort(-pairs.num_inliers[candidates], kind="stable")]
    tried: dict[int, Parallax] = {}
    for pair, geometry in reader.geometries(best[: limits.init_pairs]):
        points = reader.keypoints(pair)
        cameras = reader.cameras(pair)
        seen = parallax(cameras[0], points[0], cameras[1], points[1], geometry)
        if seen is not None and _is_wide(seen, limits) and pairs.config[pair] not in _PLANAR:
            return
        tried[pair] = seen or Parallax(angle=0.0, forward=0.0)
    yield _doubtful_start(found, tried, limits)


def _is_wide(seen: Parallax, limits: Thresholds) -> bool:
    return seen.angle >= limits.init_min_angle and seen.forward <= limits.init_max_forward


def _doubtful_start(found: Survey, tried: dict[int, Parallax], limits: Thresholds) -> Finding:
    """Return the finding on pairs none of which is both wide and not planar."""
    # Pictures taken close together look planar too, and their homography says nothing.
    general = {p: s for p, s in tried.items() if found.pairs.config[p] not in _PLANAR}
    wide = {p: s for p, s in tried.items() if _is_wide(s, limits)}
    if wide and not general:
        return Finding(
            Severity.WARNING,
            "planar-pairs",
            f"the best {len(tried)} pairs to begin with show a plane, or pictures from one place: "
            "their pose has two solutions, and a focal length cannot be found from them",
            tuple(Place(found.names_of(p), f"{s.angle:.1f} degrees") for p, s in wide.items()),
            "give the focal length (-o camera.params=...) and hold it (-o camera.fixed=true); "
            "pictures that show more than the plane",
        )
    tried = general or tried
    forward = {p: s for p, s in tried.items() if s.forward > limits.init_max_forward}
    if len(forward) > len(tried) / 2:
        return Finding(
            Severity.PROBLEM,
            "forward-motion",
            f"the cameras of {len(forward)} of the best {len(tried)} pairs move along their "
            "viewing direction, where depth is known poorly: no pair to begin with",
            tuple(Place(found.names_of(p), f"{s.forward:.2f}") for p, s in forward.items()),
            f"-o mapper.mapper.init_max_forward_motion=0.99; --mapper global; {_WIDER}",
        )
    widest = max(seen.angle for seen in tried.values())
    return Finding(
        Severity.PROBLEM,
        "narrow-pairs",
        f"the best {len(tried)} pairs see their points under {widest:.1f} degrees at most, where "
        f"one to begin with needs {limits.init_min_angle:g}: the camera turned on the spot, or "
        "hardly moved",
        tuple(Place(found.names_of(p), f"{s.angle:.1f} degrees") for p, s in tried.items()),
        f"-o mapper.mapper.init_min_tri_angle=4 (the default is 16, halved twice); {_WIDER}",
    )


def _open_cycles(
    found: Survey, reader: PairReader, doubtful: Collection[int], limits: Thresholds
) -> Iterator[Finding]:
    """Yield that the rotations of strong pairs contradict each other."""
    pairs = found.pairs
    strong = reader.readable & (pairs.num_inliers >= limits.strong_inliers)
    is_doubtful = np.isin(found.images.camera_ids, list(doubtful))[pairs.images].any(axis=1)
    rows = np.flatnonzero(strong & np.isin(pairs.config, _GENERAL) & ~is_doubtful)
    edges = pairs.images[rows]
    cycles = triangles(len(found.images), edges, limits.max_cycles)
    if not len(cycles):
        return
    errors = cycle_errors(_rotations(found, reader, rows), cycles)
    is_open = errors > limits.cycle_angle
    share = np.count_nonzero(is_open) / len(cycles)
    if share <= limits.share_open_cycles:
        return
    num = np.bincount(cycles.ravel(), minlength=len(rows))
    num_open = np.bincount(cycles[is_open].ravel(), minlength=len(rows))
    suspects = np.flatnonzero(2 * num_open > num)
    suspects = suspects[np.argsort(-num_open[suspects] / num[suspects], kind="stable")]
    yield Finding(
        Severity.WARNING,
        "rotation-cycles",
        f"the rotations of {np.count_nonzero(is_open)} of {len(cycles)} triples of images do not "
        f"close ({share:.0%}, by more than {limits.cycle_angle:g} degrees), though each of their "
        "pairs is strong: repeated structure seems to be matched, or focal lengths are wrong",
        tuple(
            Place(found.names_of(int(rows[i])), f"open in {num_open[i]} of {num[i]} triples")
            for i in suspects
        ),
        "look at these pairs (sfm-match show OUT A B); a stricter matcher (-o matcher.ratio=0.8), "
        "fewer pairs (--pairs sequential, spatial), a larger "
        "-o mapper.mapper.abs_pose_min_num_inliers, or leave false pairs out of pairs.txt",
    )


def _rotations(found: Survey, reader: PairReader, rows: ArrayInt) -> ArrayF64:
    """Return the rotations `b_from_a` of pairs, float64 (R, 3, 3), not-a-number without one."""
    rotations = found.pairs.poses[rows, :, :3].copy()
    without: npt.NDArray[np.bool_] = (
        np.isnan(rotations).any(axis=(1, 2)) & found.pairs.has_matrix[rows]
    )
    position = {int(rows[i]): int(i) for i in np.flatnonzero(without)}
    for pair, geometry in reader.geometries(list(position), _INLIERS_FOR_POSE):
        points = reader.keypoints(pair)
        cameras = reader.cameras(pair)
        if parallax(cameras[0], points[0], cameras[1], points[1], geometry) is not None:
            pose = geometry.cam2_from_cam1
            assert pose is not None
            rotations[position[pair]] = pose.rotation.matrix()
    return rotations


def _pairs(found: Survey, rows: npt.NDArray[np.intp]) -> tuple[Place, ...]:
    return tuple(
        Place(found.names_of(int(row)), f"{found.pairs.num_inliers[row]} inliers") for row in rows
    )

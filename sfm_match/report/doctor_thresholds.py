"""Where the doctor draws its lines, and why there.

"Healthy" are the runs of the sample gallery (16 images) and of Strecha's fountain-P11 with SIFT,
R2D2, ALIKED and a coarse LoFTR, with and without known intrinsics; all images register in each.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """The doctor's thresholds.

    Attributes:
        share_outside: a problem if more keypoints of an image than that lie out of it. A few at the
            border come from refinement; more come from another raster or size.
        share_whole: keypoints of an image on whole pixels from which on they count as of the other
            convention. Subpixel detectors have none, detectors on the grid have all.
        min_keypoints: an image with fewer keypoints says nothing of the convention.
        max_offset: pixels, in x and in y, between the database's keypoints and COLMAP's own
            detection. The other convention is off by 0.5, OpenCV's SIFT by 0.25.
        share_redetected: of an image's keypoints must be found again to speak of an offset: other
            detectors than SIFT find other points.
        min_inliers: a pair with fewer does not link its images: COLMAP's `min_num_matches`.
        good_inliers: an image whose best pair has fewer can hardly be registered: COLMAP's
            `abs_pose_min_num_inliers`.
        strong_inliers: from here on a pair's geometry is trusted; COLMAP's `init_min_num_inliers`.
            In healthy runs pairs below it are often wrong, rarely above it.
        init_min_inliers: of an initial pair after COLMAP's two relaxations: a quarter of 100.
        init_min_angle: degrees, likewise: a quarter of 16.
        init_max_forward: part of the translation along the viewing direction from which on COLMAP
            refuses an initial pair; this one it does not relax.
        init_pairs: the best pairs that are tried; as many as COLMAP needs in practice.
        share_seen_twice: keypoints that are verified in a second pair, over those that could be:
            the inliers of each image's second best pair. Healthy: 1.0 to 1.6; with keypoints of
            their own in each pair, 0.
        min_track_length: the mean of a model's points; they are seen by two images at the least.
            Healthy: 3.5 to 5.5.
        cycle_angle: degrees by which the rotations of three pairs may fail to close. Healthy strong
            pairs stay below, guessed focal lengths (33 % off) apart.
        share_open_cycles: of all cycles. Healthy: 0 to 0.10, with the guessed focal lengths; one
            false pair out of ten images' is left to the mapper, which copes with it.
        max_cycles: that are looked at, so that thousands of images matched exhaustively take
            seconds; a random sample beyond.
        focal_range: the focal length over the long side is never out of this range: COLMAP takes
            cameras beyond it for bogus.
        focal_ratio: prior over what the data say, or the reverse. EXIF is within some per cent;
            healthy: 1.01.
        focal_evidence: how many times worse the epipolar geometry fits the prior than what the
            data say. With few or degenerate pairs any focal length fits.
        focal_min_pairs: a camera with fewer says nothing: one alone is often degenerate.
        focal_pairs: the pairs that vote for each camera, as many as make the votes agree; and of
            `max_focal_pairs` in all.
        max_focal_pairs: so that the vote takes two seconds at most.
        refined_ratio: the model's focal length over a guessed one, or the reverse, from which on
            it has drifted: a guess of 1.2 times the long side is for lenses of 24 to 90 mm.
        max_reprojection_error: pixels, the mean of the model. Healthy: 0.1 to 0.7.
    """

    share_outside: float = 0.01
    share_whole: float = 0.9
    min_keypoints: int = 20
    max_offset: float = 0.35
    share_redetected: float = 0.2
    min_inliers: int = 15
    good_inliers: int = 30
    strong_inliers: int = 100
    init_min_inliers: int = 25
    init_min_angle: float = 4.0
    init_max_forward: float = 0.95
    init_pairs: int = 50
    share_seen_twice: float = 0.1
    min_track_length: float = 2.3
    cycle_angle: float = 20.0
    share_open_cycles: float = 0.15
    max_cycles: int = 50_000
    focal_range: tuple[float, float] = (0.1, 10.0)
    focal_ratio: float = 1.2
    focal_evidence: float = 3.0
    focal_min_pairs: int = 3
    focal_pairs: int = 10
    max_focal_pairs: int = 200
    refined_ratio: float = 2.5
    max_reprojection_error: float = 2.0

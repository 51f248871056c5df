"""Findings on the rows of a database: features and pairs, each by itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sfm_match.report.doctor_tables import ImageTable, Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Place, Severity, count

_COLMAP_COLUMNS = (2, 4, 6)
_WRITE_AGAIN = "write the database again from the features and matches: sfm-match import OUT"


def examine_rows(found: Survey, limits: Thresholds) -> Iterator[Finding]:
    """Yield what is wrong with cameras, images, keypoints and the rows of pairs."""
    if len(found.images) < 2:
        yield Finding(
            Severity.PROBLEM,
            "no-images",
            f"the database has {len(found.images) or 'no'} image{'' if len(found.images) else 's'}",
            (),
            "make it from a folder of several images: sfm-match run IMAGES OUT",
        )
    if found.damages:
        yield Finding(
            Severity.PROBLEM,
            "damaged-rows",
            f"{count(len(found.damages), 'row')} cannot be read: {'; '.join(found.damages[:3])}",
            (),
            _WRITE_AGAIN,
        )
    yield from _bogus_cameras(found, limits)
    yield from _without_features(found.images)
    yield from _wrong_columns(found.images)
    yield from _outside(found, limits)
    yield from _half_pixel(found.images, limits)
    yield from _out_of_range(found)
    yield from _impossible_pairs(found)


def _bogus_cameras(found: Survey, limits: Thresholds) -> Iterator[Finding]:
    bogus = bogus_cameras(found, limits)
    if bogus:
        names = np.array(found.images.names)
        of_camera = {i: names[found.images.camera_ids == i] for i in sorted(bogus)}
        yield Finding(
            Severity.PROBLEM,
            "bogus-cameras",
            f"{count(len(bogus), 'camera')} of impossible size, focal length or principal point",
            tuple(
                Place((str(of_image[0]),), found.cameras[i].params_to_string())
                for i, of_image in of_camera.items()
                if len(of_image)
            ),
            "give parameters as the camera model orders them, in pixels (-o camera.params=...)",
        )


def bogus_cameras(found: Survey, limits: Thresholds) -> frozenset[int]:
    """Return the ids of the cameras whose parameters COLMAP would take for bogus."""
    return frozenset(
        camera_id
        for camera_id, camera in found.cameras.items()
        if not min(camera.width, camera.height)
        or not np.isfinite(camera.params).all()
        or camera.has_bogus_params(*limits.focal_range, np.inf)
    )


def _without_features(images: ImageTable) -> Iterator[Finding]:
    empty = images.num_keypoints == 0
    num = int(np.count_nonzero(empty))
    if num:
        too_few = len(images) - num < 2
        yield Finding(
            Severity.PROBLEM if too_few else Severity.WARNING,
            "no-features",
            f"{num} of {count(len(images), 'image')} without keypoints: nothing can match them",
            tuple(Place((images.names[i],)) for i in np.flatnonzero(empty)),
            "look at these images: black, blurred, or masked as a whole? If not, lower the "
            "extractor's threshold or take another one (--features; sfm-match models)",
        )


def _wrong_columns(images: ImageTable) -> Iterator[Finding]:
    wrong = (images.num_columns > 0) & ~np.isin(images.num_columns, _COLMAP_COLUMNS)
    if wrong.any():
        yield Finding(
            Severity.PROBLEM,
            "keypoint-columns",
            f"{count(np.count_nonzero(wrong), 'image')} with keypoints of a number of columns that "
            "COLMAP refuses: it takes 2 (x, y), 4 (and scale, orientation) or 6 (and an affine "
            "shape)",
            tuple(
                Place((images.names[i],), f"{images.num_columns[i]} columns")
                for i in np.flatnonzero(wrong)
            ),
            "write keypoints as float32 (N, 2)",
        )


def _outside(found: Survey, limits: Thresholds) -> Iterator[Finding]:
    images = found.images
    rows = np.flatnonzero(images.num_outside)
    if not len(rows):
        return
    share = images.num_outside[rows] / images.num_keypoints[rows]
    rows = rows[np.argsort(-share, kind="stable")]
    turned = (images.num_outside_turned[rows] == 0).all()
    advice = (
        "they fit images turned by a quarter: keypoints refer to the raster of the file, whose "
        "EXIF orientation COLMAP ignores; sfm-match extract maps them back by itself"
        if turned
        else "keypoints must be in pixels of the full-size image: multiply those of a resized one "
        "by full size / resized size, or extract again: sfm-match extract IMAGES OUT; where they "
        "are no numbers, the file is damaged or what wrote it is broken"
    )
    yield Finding(
        Severity.PROBLEM if share.max() > limits.share_outside else Severity.WARNING,
        "out-of-bounds",
        f"{count(images.num_outside.sum(), 'keypoint')} of {count(len(rows), 'image')} out of the "
        "image, or not numbers",
        tuple(Place((images.names[i],), _outside_text(found, int(i))) for i in rows),
        advice,
    )


def _outside_text(found: Survey, row: int) -> str:
    images, camera = found.images, found.camera(row)
    size = f", {camera.width} x {camera.height} pixels" if camera is not None else ""
    return f"{images.num_outside[row]} of {images.num_keypoints[row]}{size}"


def _half_pixel(images: ImageTable, limits: Thresholds) -> Iterator[Finding]:
    enough = images.num_keypoints >= limits.min_keypoints
    whole = enough & (images.num_whole >= limits.share_whole * images.num_keypoints)
    if whole.any():
        yield half_pixel_finding(
            f"{count(np.count_nonzero(whole), 'image')} with keypoints on whole numbers: they have "
            "the first pixel's centre at (0, 0), where COLMAP has it at (0.5, 0.5)",
            tuple(Place((images.names[i],)) for i in np.flatnonzero(whole)),
        )


def half_pixel_finding(what: str, where: tuple[Place, ...]) -> Finding:
    """Return the finding that keypoints are off by about half a pixel."""
    return Finding(
        Severity.WARNING,
        "half-pixel",
        what,
        where,
        "shift x and y by that half pixel, once, in float32; sfm-match extract does so for every "
        "extractor",
    )


def _out_of_range(found: Survey) -> Iterator[Finding]:
    pairs = found.bad.out_of_range.most_common()
    if pairs:
        yield Finding(
            Severity.PROBLEM,
            "matches-out-of-range",
            f"{count(len(pairs), 'pair')} with matches of keypoints that are not there: they are "
            "of other features than the database has, or damaged",
            tuple(Place(names, f"{num} matches or inliers") for names, num in pairs),
            "match the features that the database has, or write both again: sfm-match match OUT, "
            "then sfm-match import OUT",
        )


def _impossible_pairs(found: Survey) -> Iterator[Finding]:
    bad = found.bad
    if bad.orphans:
        stops = any(bad.orphans.values())
        yield Finding(
            Severity.PROBLEM if stops else Severity.NOTE,
            "orphan-pairs",
            f"{count(len(bad.orphans), 'pair')} of images that are not there"
            + (": COLMAP's mappers stop with an error on their geometries" if stops else ""),
            tuple(Place((f"id {a}", f"id {b}")) for a, b in bad.orphans),
            f"delete these rows, or {_WRITE_AGAIN}",
        )
    if bad.selves:
        yield Finding(
            Severity.NOTE,
            "self-pairs",
            f"{count(len(bad.selves), 'pair')} of an image with itself: COLMAP's mappers ignore it",
            tuple(Place((name,)) for name in sorted(bad.selves)),
            f"leave them out of the list of pairs, and {_WRITE_AGAIN}",
        )
    if bad.duplicates:
        stops = any(bad.duplicates.values())
        yield Finding(
            Severity.PROBLEM if stops else Severity.WARNING,
            "duplicate-pairs",
            f"{count(len(bad.duplicates), 'pair')} in the database twice"
            + (": COLMAP's mappers stop with an error on two geometries" if stops else ""),
            tuple(Place(names) for names in bad.duplicates),
            f"list each pair once, in one order, and {_WRITE_AGAIN}",
        )
    if bad.reversed:
        yield Finding(
            Severity.WARNING,
            "reversed-pairs",
            f"{count(len(bad.reversed), 'pair')} under the number of the other order, where COLMAP "
            "looks in vain (it is 2147483647 times the smaller id plus the larger)",
            tuple(Place(names) for names in sorted(bad.reversed)),
            _WRITE_AGAIN,
        )

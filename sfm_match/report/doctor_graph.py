"""Findings on the match graph: what is verified, what hangs together and by how much."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sfm_match.geometry.match_graph import bridges, components
from sfm_match.report.doctor_tables import ArrayInt, Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Place, Severity, count

_MOST = 0.8
_MORE_PAIRS = (
    "match more pairs: --pairs exhaustive, or sequential+retrieval for many images; "
    "-o pairs.expand=2 adds neighbours of neighbours"
)
_OTHER_MATCHES = (
    "other features or a denser matcher (--recipe aliked, r2d2, loftr; sfm-match recipes)"
)


def examine_graph(found: Survey, limits: Thresholds) -> Iterator[Finding]:
    """Yield what is wrong with the pairs as a whole."""
    images, pairs = found.images, found.pairs
    if not len(pairs):
        if np.count_nonzero(images.num_keypoints) >= 2 and not found.bad.reversed:
            yield Finding(
                Severity.PROBLEM,
                "no-matches",
                "no pair of images has matches",
                (),
                "match the features: sfm-match run IMAGES OUT, or import the matches of another "
                f"tool; where a matcher found none, {_OTHER_MATCHES}",
            )
        return
    if not pairs.num_inliers.any():
        yield Finding(
            Severity.PROBLEM,
            "not-verified",
            f"no verified geometry for {count(len(pairs), 'pair')} with matches, and mapping reads "
            "nothing else",
            (),
            "verify them: sfm-match verify OUT, then sfm-match import OUT; or pycolmap."
            f"geometric_verification(DATABASE). If it was done, the matches are wrong: "
            f"{_OTHER_MATCHES}",
        )
        return
    links = np.flatnonzero(pairs.num_inliers >= limits.min_inliers)
    part = components(len(images), pairs.images[links])
    best = np.zeros(len(images), np.int64)
    np.maximum.at(best, pairs.images.ravel(), np.repeat(pairs.num_inliers, 2))
    yield from _isolated(found, part, best, limits)
    yield from _split(found, part)
    yield from _few_inliers(found, part, best, limits)
    yield from _weak_bridges(found, links, limits)
    yield from _short_tracks(found, links, limits)


def _isolated(
    found: Survey, part: ArrayInt, best: ArrayInt, limits: Thresholds
) -> Iterator[Finding]:
    """Yield the images with keypoints that no pair links with another."""
    images = found.images
    rows = np.flatnonzero((np.bincount(part)[part] == 1) & (images.num_keypoints > 0))
    if len(rows):
        yield Finding(
            Severity.WARNING if len(images) - len(rows) >= 2 else Severity.PROBLEM,
            "isolated-images",
            f"{len(rows)} of {count(len(images), 'image')} without a pair of the "
            f"{limits.min_inliers} verified inliers that count in mapping: not to be in a model",
            _by_inliers(found, rows, best),
            f"{_MORE_PAIRS}; {_OTHER_MATCHES}; or do they show something else?",
        )


def _split(found: Survey, part: ArrayInt) -> Iterator[Finding]:
    """Yield that there are several parts of two images and more."""
    sizes = np.bincount(part)
    sizes = sizes[sizes > 1]
    if len(sizes) > 1:
        shown = ", ".join(map(str, sizes[:5])) + (", ..." if len(sizes) > 5 else "")
        most = sizes[0] >= _MOST * len(part)
        yield Finding(
            Severity.WARNING if most else Severity.PROBLEM,
            "split-graph",
            f"the verified pairs leave the images in {len(sizes)} parts, of {shown} images: at "
            "best one model each",
            tuple(
                Place((found.images.names[np.flatnonzero(part == i)[0]],), f"and {size - 1} more")
                for i, size in enumerate(sizes)
                if i
            ),
            f"{_MORE_PAIRS}; {_OTHER_MATCHES}; or take pictures in between",
        )


def _few_inliers(
    found: Survey, part: ArrayInt, best: ArrayInt, limits: Thresholds
) -> Iterator[Finding]:
    if best.max() < limits.init_min_inliers:
        return  # there is no initial pair, which says more
    linked = np.bincount(part)[part] > 1
    rows = np.flatnonzero(linked & (best < limits.good_inliers))
    if len(rows):
        yield Finding(
            Severity.PROBLEM if len(rows) == np.count_nonzero(linked) else Severity.WARNING,
            "few-inliers",
            f"{count(len(rows), 'image')} with less than {limits.good_inliers} verified inliers in "
            "the best pair, less than registration needs",
            _by_inliers(found, rows, best),
            f"{_OTHER_MATCHES}; more keypoints (-o features.max_keypoints=8192); {_MORE_PAIRS}",
        )


def _weak_bridges(found: Survey, links: ArrayInt, limits: Thresholds) -> Iterator[Finding]:
    """Yield the single pairs that two or more images on each side hang together by."""
    edges, sizes = bridges(len(found.images), found.pairs.images[links])
    pairs = links[edges[sizes > 1]]
    num_inliers = found.pairs.num_inliers[pairs]
    weak = num_inliers < limits.strong_inliers
    # An image with a single weak pair is for _few_inliers; a strong pair alone is as good as it is.
    if len(pairs):
        order = np.argsort(num_inliers, kind="stable")
        yield Finding(
            Severity.WARNING if weak.any() else Severity.NOTE,
            "weak-bridge",
            f"{count(len(pairs), 'pair')} that alone links two parts of the images"
            + (f", {np.count_nonzero(weak)} with few inliers" if weak.any() else "")
            + ": there a model may break, or be wrong in scale",
            tuple(Place(found.names_of(int(pairs[i])), f"{num_inliers[i]} inliers") for i in order),
            f"{_MORE_PAIRS}; or take pictures in between",
        )


def _short_tracks(found: Survey, links: ArrayInt, limits: Thresholds) -> Iterator[Finding]:
    """Yield that hardly any keypoint is verified in two pairs, though images are in several."""
    second = _second_best(found, links)
    if second.any() and found.num_seen_twice < limits.share_seen_twice * second.sum():
        yield Finding(
            Severity.PROBLEM,
            "short-tracks",
            f"only {count(found.num_seen_twice, 'keypoint')} verified in a second pair of about "
            f"{second.sum()} that could be: hardly a point is seen by three images, and mapping "
            "ignores those seen by two",
            (),
            "each pair has keypoints of its own, as detector-free matchers give them: join them "
            "into tracks (--recipe coarse-loftr or loftr does; a larger -o tracks.radius joins "
            "more)",
        )


def _second_best(found: Survey, links: ArrayInt) -> ArrayInt:
    """Return the number of inliers of each image's second best pair, 0 where there is none."""
    best = np.zeros(len(found.images), np.int64)
    second = best.copy()
    num_inliers = found.pairs.num_inliers[links]
    for pair in links[np.argsort(num_inliers, kind="stable")]:
        ends = found.pairs.images[pair]
        second[ends] = best[ends]
        best[ends] = found.pairs.num_inliers[pair]
    return second


def _by_inliers(found: Survey, rows: ArrayInt, best: ArrayInt) -> tuple[Place, ...]:
    return tuple(
        Place((found.images.names[i],), f"{best[i]} inliers at most" if best[i] else "no inliers")
        for i in rows[np.argsort(best[rows], kind="stable")]
    )

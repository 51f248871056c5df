"""Tracks of correspondences from a known model: how right they are, seconds and peak memory.

    python -m tests.benchmarks.bench_tracks [accuracy | cost | large]

`accuracy`: precision and recall against noise, radius and fewest matches of a keypoint. `cost`: 45
images, their 990 pairs with 2,000 correspondences each, next to a plain quantise-and-count in
Python, each in a process of its own. `large`: 10,000 pairs with 2,000 correspondences each, from
store to store, which takes minutes and 2 GB of disk.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfm_match.geometry.tracks import TrackOptions, tracks_of_pairs
from sfm_match.io.exif import CameraTags, ImageHeader
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.match import match_digest
from sfm_match.stages.scan import Source
from sfm_match.stages.tracks import make_tracks, tracks_spec
from sfm_match.types import Correspondences, Features, Matches, Pair
from tests.benchmarks.measure import cost_of, in_process, report
from tests.track_scene import SIZE, TrackScene, make_scene, score_matches

NUM_FOUND = 2000
RADIUS = 2.0
MATCHER = Spec("matchers", "points", 1, {})
NUM_LARGE, NEIGHBOURS = 420, 25


def print_accuracy() -> None:
    """Print precision and recall for 12 images; a fifth of the correspondences are wrong."""
    for noise in (0.3, 0.5, 1.0):
        scene = make_scene(num_images=12, num_points=1500, num_found=600, noise=noise)
        for radius in (1.0, 1.5, 2.0, 3.0, 4.0):
            for min_matches in (1, 2):
                options = TrackOptions(radius=radius, min_matches=min_matches)
                found = score_matches(scene, *tracks_of_pairs(scene.found, options), radius)
                print(
                    f"noise {noise:.1f} px, radius {radius:.1f} px, min_matches {min_matches}: "
                    f"precision {found.precision:.3f}, recall {found.recall:.3f}, "
                    f"offset {found.offset:.2f} px"
                )
        plain = score_matches(scene, *quantise(scene.found), 2 * RADIUS)
        print(
            f"noise {noise:.1f} px, cells of {2 * RADIUS:.0f} px counted: precision "
            f"{plain.precision:.3f}, recall {plain.recall:.3f}, offset {plain.offset:.2f} px"
        )


def quantise(
    found: dict[Pair, Correspondences], size: float = 2 * RADIUS
) -> tuple[dict[str, np.ndarray], dict[Pair, Matches]]:
    """Round points to cells, keep those that occur twice, and match cells, point by point."""
    counts: dict[str, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
    for pair, item in found.items():
        for name, points in ((pair.a, item.points0), (pair.b, item.points1)):
            for x, y in points.tolist():
                counts[name][(round(x / size), round(y / size))] += 1
    rows: dict[str, dict[tuple[int, int], int]] = {}
    for name, cells in counts.items():
        kept = [cell for cell, count in cells.items() if count > 1]
        rows[name] = {cell: row for row, cell in enumerate(kept)}
    matches = {}
    for pair, item in found.items():
        best: dict[tuple[int, int], float] = {}
        ends = item.points0.tolist(), item.points1.tolist()
        for (x0, y0), (x1, y1), score in zip(*ends, item.scores.tolist(), strict=True):
            row0 = rows[pair.a].get((round(x0 / size), round(y0 / size)))
            row1 = rows[pair.b].get((round(x1 / size), round(y1 / size)))
            if row0 is not None and row1 is not None:
                best[row0, row1] = max(score, best.get((row0, row1), 0.0))
        used: tuple[set[int], set[int]] = (set(), set())
        chosen = []
        for (row0, row1), score in sorted(best.items(), key=lambda one: -one[1]):
            if row0 not in used[0] and row1 not in used[1]:
                used[0].add(row0)
                used[1].add(row1)
                chosen.append((row0, row1, score))
        values = np.array(chosen, np.float32).reshape(-1, 3)
        matches[pair] = Matches(values[:, :2].astype(np.int32), values[:, 2].copy())
    keypoints = {
        name: np.array(list(cells), np.float32).reshape(-1, 2) * np.float32(size)
        for name, cells in rows.items()
    }
    return keypoints, matches


def many(num_images: int = 45) -> TrackScene:
    return make_scene(num_images=num_images, num_points=6000, num_found=NUM_FOUND)


def run_nothing() -> None:
    scene = many()
    report(cost_of(lambda: len(scene.found)))


def run_tracks() -> None:
    scene = many()
    report(cost_of(lambda: tracks_of_pairs(scene.found, TrackOptions(radius=RADIUS))))


def run_quantise() -> None:
    scene = many()
    report(cost_of(lambda: quantise(scene.found)))


def print_cost() -> None:
    base = in_process(__spec__.name, "run_nothing")
    for name in ("run_tracks", "run_quantise"):
        cost = in_process(__spec__.name, name)
        print(
            f"{name}: {cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of processor, "
            f"{cost.peak_mb - base.peak_mb:.0f} MB above the {base.peak_mb:.0f} MB of the input"
        )


def large_pairs() -> list[Pair]:
    names = [f"{i:04}" for i in range(NUM_LARGE)]
    return [
        Pair(names[i], names[j])
        for i in range(NUM_LARGE)
        for j in range(i + 1, min(i + 1 + NEIGHBOURS, NUM_LARGE))
    ][:10_000]


def large_items() -> Iterator[tuple[Pair, Correspondences]]:
    """Correspondences as on a long path: a point moves on and out of sight after 50 images."""
    rng = np.random.default_rng(0)
    phase = rng.integers(0, 50, 9000)
    start = rng.uniform(0, SIZE, (9000, 2))
    for pair in large_pairs():
        rows = np.flatnonzero((int(pair.a) + phase) // 50 == (int(pair.b) + phase) // 50)
        rows = rng.choice(rows, NUM_FOUND, replace=False)
        ends = []
        for name in (pair.a, pair.b):
            step, generation = (int(name) + phase[rows]) % 50, (int(name) + phase[rows]) // 50
            places = start[rows] + np.stack([3.0 * step, 97.0 * generation], axis=1)
            ends.append((places + rng.normal(size=places.shape) * 0.5) % SIZE)
        wrong = rng.uniform(size=NUM_FOUND) < 0.1
        ends[1][wrong] = rng.uniform(0, SIZE, (NUM_FOUND, 2))[wrong]
        scores = rng.uniform(0.2, 1, NUM_FOUND)
        yield pair, Correspondences(*(v.astype(np.float32) for v in (*ends, scores)))


def run_large(folder: Path) -> None:
    digests = {f"{i:04}": i.to_bytes(32, "big") for i in range(NUM_LARGE)}
    header = ImageHeader(width=SIZE[0], height=SIZE[1], orientation=1)
    tags = CameraTags(focal=None, body=None)
    sources = {n: Source(n, Path(n), None, d, header, tags) for n, d in digests.items()}
    spec = tracks_spec({"radius": RADIUS}, MATCHER, None)
    store = Store(folder / "correspondences", Correspondences)
    made = Store(folder / "features", Features), Store(folder / "matches", Matches)
    work = lambda: print(  # noqa: E731
        make_tracks(large_pairs(), digests, sources, spec, store, None, *made)
    )
    report(cost_of(work))


def print_large() -> None:
    digests = {f"{i:04}": i.to_bytes(32, "big") for i in range(NUM_LARGE)}
    with tempfile.TemporaryDirectory() as name:
        with Store(Path(name) / "correspondences", Correspondences).writer() as writer:
            for pair, item in large_items():
                writer.add(pair, match_digest(pair, digests), item)
        cost = in_process(__spec__.name, "run_large", name)
    print(
        f"{len(large_pairs())} pairs from store to store: {cost.seconds:.1f} s, "
        f"{cost.cpu_seconds:.1f} s of processor, peak {cost.peak_mb:.0f} MB"
    )


if __name__ == "__main__":
    parts = {"accuracy": print_accuracy, "cost": print_cost, "large": print_large}
    runs = {"run_nothing": run_nothing, "run_tracks": run_tracks, "run_quantise": run_quantise}
    if sys.argv[1:2] == ["run_large"]:
        run_large(Path(sys.argv[2]))
    else:
        for chosen in sys.argv[1:] or ["accuracy", "cost"]:
            (parts | runs)[chosen]()

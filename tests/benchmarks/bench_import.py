"""Import of 1,000 images and 10,000 pairs from stores, against raw pycolmap writes.

    python -m tests.benchmarks.bench_import

The baseline writes the same arrays from memory, in one transaction.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.geometry import cameras
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.database import build_database
from sfm_match.stages.match import match_digest
from sfm_match.stages.verify import verify_digest, verify_spec
from sfm_match.types import Features, Matches, Pair, TwoView, TwoViewConfig
from tests.benchmarks.measure import cost_of, in_process, report

NUM_IMAGES, NUM_KEYPOINTS, NUM_PAIRS, NUM_MATCHES = 1000, 5000, 10_000, 500
NAMES = [f"{i:04d}.jpg" for i in range(NUM_IMAGES)]
DIGESTS = {name: hashlib.sha256(name.encode()).digest() for name in NAMES}
PAIRS = [Pair(NAMES[i], NAMES[i + step]) for step in range(1, 12) for i in range(1000 - step)]
PAIRS = PAIRS[:NUM_PAIRS]
INFOS = [cameras.ImageInfo(name, 1024, 768, None, None) for name in NAMES]


def features_of(name: str) -> Features:
    rng = np.random.default_rng(int(name[:4]))
    return Features(
        keypoints=rng.random((NUM_KEYPOINTS, 2), np.float32) * 700,
        scores=rng.random(NUM_KEYPOINTS, np.float32),
        descriptors=rng.random((NUM_KEYPOINTS, 128), np.float32).astype(np.float16),
        image_size=np.array([1024, 768], np.int32),
    )


def matched() -> Iterator[tuple[Pair, Matches, TwoView]]:
    rng = np.random.default_rng(0)
    for pair in PAIRS:
        indices = rng.integers(0, NUM_KEYPOINTS, (NUM_MATCHES, 2), np.int32)
        two_view = TwoView(TwoViewConfig.CALIBRATED, np.ones(NUM_MATCHES, bool))
        yield pair, Matches(indices, np.ones(NUM_MATCHES, np.float32)), two_view


def stores(folder: Path) -> tuple[Store[Features], Store[Matches], Store[TwoView]]:
    return (
        Store(folder / "features", Features),
        Store(folder / "matches", Matches),
        Store(folder / "two_views", TwoView),
    )


def fill(folder: Path) -> None:
    assigned = cameras.assign_cameras(INFOS, cameras.Config())
    features, matches, two_views = stores(folder)
    with features.writer() as writer:
        for name in NAMES:
            writer.add(name, DIGESTS[name], features_of(name))
    with matches.writer() as to_matches, two_views.writer() as to_two_views:
        for pair, found, two_view in matched():
            to_matches.add(pair, match_digest(pair, DIGESTS), found)
            to_two_views.add(pair, verify_digest(pair, DIGESTS, assigned), two_view)


def ours(folder: Path) -> None:
    assigned = cameras.assign_cameras(INFOS, cameras.Config())
    spec = verify_spec({}, Spec("matchers", "nearest", 1, {}), 0)
    opened = stores(folder)
    work = lambda: build_database(folder / "ours.db", DIGESTS, PAIRS, assigned, spec, *opened)  # noqa: E731
    report(cost_of(work))


def reading(folder: Path) -> None:
    assigned = cameras.assign_cameras(INFOS, cameras.Config())
    features, matches, two_views = stores(folder)

    def work() -> None:
        for _ in features.arrays(list(DIGESTS.items()), ("keypoints", "scales", "orientations")):
            pass
        for _ in matches.items([(pair, match_digest(pair, DIGESTS)) for pair in PAIRS]):
            pass
        for _ in two_views.items([(p, verify_digest(p, DIGESTS, assigned)) for p in PAIRS]):
            pass

    report(cost_of(work))


def baseline(folder: Path) -> None:
    keypoints = [features_of(name).keypoints for name in NAMES]
    arrays = [(pair, found.indices.astype(np.uint32)) for pair, found, _ in matched()]

    def work() -> None:
        path = folder / "baseline.db"
        with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
            ids = {}
            for name, points in zip(NAMES, keypoints, strict=True):
                camera = pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", 1e3, 1024, 768)
                camera_id = database.write_camera(camera)
                ids[name] = database.write_image(pycolmap.Image(name=name, camera_id=camera_id))
                database.write_keypoints(ids[name], points)
            for pair, indices in arrays:
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = 2
                geometry.inlier_matches = indices
                database.write_matches(ids[pair.a], ids[pair.b], indices)
                database.write_two_view_geometry(ids[pair.a], ids[pair.b], geometry)

    report(cost_of(work))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name))
        for run in range(3):
            for path in Path(name).glob("*.db"):
                path.unlink()
            costs = {
                part: in_process(__spec__.name, part, name)
                for part in ("baseline", "reading", "ours")
            }
            base = costs["baseline"].seconds
            for part, cost in costs.items():
                print(
                    f"run {run}: {part:8} {cost.seconds:.2f} s, {cost.peak_mb:.0f} MB peak, "
                    f"{cost.seconds / base:.2f} of the baseline's time"
                )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        {"baseline": baseline, "reading": reading, "ours": ours}[sys.argv[1]](Path(sys.argv[2]))
    else:
        main()

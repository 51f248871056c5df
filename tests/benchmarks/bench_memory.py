"""Peak memory of extraction and matching for 50, 500 and 1000 images: it should not grow.

    python -m tests.benchmarks.bench_memory IMAGES

IMAGES is a folder of photographs; crops of them stand in for a large set. Matching has a cache of
4 MB here, which not even 50 images fit in.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.extract import extract
from sfm_match.stages.match import match
from sfm_match.stages.pairs import Config, ImageSet, make_pairs
from sfm_match.stages.scan import scan
from sfm_match.types import Features, Matches
from tests.benchmarks.measure import cost_of, in_process, report

SIZE = (480, 360)
SPEC = Spec.parse("extractors", "sift", {"max_keypoints": 1000, "first_octave": 0})
MATCHER = Spec.parse("matchers", "nearest", {"ratio": 0.75}, (SPEC,))


def make_images(source: Path, folder: Path, num: int) -> None:
    rng = np.random.default_rng(0)
    paths = sorted(source.iterdir())
    folder.mkdir()
    for i in range(num):
        with PIL.Image.open(paths[i % len(paths)]) as image:
            x, y = (int(rng.integers(0, image.size[k] - SIZE[k])) for k in range(2))
            image.crop((x, y, x + SIZE[0], y + SIZE[1])).save(folder / f"{i:03d}.jpg", quality=90)


def run_extract(folder: Path) -> None:
    store = Store(folder / "features", Features)
    sources = list(scan(folder / "images").images.values())
    report(cost_of(lambda: extract(sources, SPEC, store)))


def run_match(folder: Path) -> None:
    features = Store(folder / "features", Features)
    digests = {str(key): digest for key, digest in features.entries()}
    pairs = make_pairs(ImageSet(list(digests)), Config(method="sequential", overlap=5)).pairs
    matches = Store(folder / "matches", Matches)
    work = lambda: match(pairs, digests, MATCHER, features, matches, cache_bytes=4 << 20)  # noqa: E731
    report(cost_of(work))


def main(source: Path) -> None:
    for num in (50, 500, 1000):
        with tempfile.TemporaryDirectory() as name:
            make_images(source, Path(name) / "images", num)
            for part in ("extract", "match"):
                cost = in_process(__spec__.name, part, name)
                print(
                    f"{num} images: {part:7} {cost.seconds:.1f} s, peak {cost.peak_mb:.0f} MB, "
                    f"largest worker {cost.child_peak_mb:.0f} MB"
                )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        {"extract": run_extract, "match": run_match}[sys.argv[1]](Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))

"""How many truly overlapping pairs retrieval finds, and in which time.

    python -m tests.benchmarks.bench_retrieval FOLDER views [ROOMS]
    python -m tests.benchmarks.bench_retrieval FOLDER photos DATA [EXTRACTOR]

Images and features are made in FOLDER, and used again.

`views` renders 20 rooms of 50 views each (see `rendered_views`) and extracts SIFT from them: real
pictures of a made-up world, with exact overlap. A pair is true where each sees a fifth of the
other.

`photos` mixes the photographs of DATA/sacre_coeur, of DATA/fountain-P11 and of the four monuments
of DATA/phototourism_sample. A pair is true where both show one monument, and for the fountain where
a model triangulated with its true poses has at least 30 points that both see.

Each line gives for 5, 10 and 20 neighbours: the share of the true pairs that are chosen; the share
of an image's places that hold a true neighbour, of the places that could (the mean over images); of
the chosen pairs, how many are true. "plain VLAD" is 64 words, their sums as they are, and cosine.
Seconds are those of the processor.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match import Recipe, Run
from sfm_match.geometry.neighbours import nearest_others
from sfm_match.geometry.retrieval import learn_words, unit_rows
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.extract import extract
from sfm_match.stages.pairs import Config, ImageSet, make_pairs, reader_of
from sfm_match.stages.scan import scan
from sfm_match.types import ArrayBool, ArrayF32, Features, Pair
from tests.benchmarks.rendered_views import make_views

NUMBERS = (5, 10, 20)
MIN_OVERLAP = 0.2
MIN_SHARED = 30


def read_images(folder: Path, extractor: Spec) -> ImageSet:
    """Extract the features of `folder/images`, unless that was done."""
    store = Store(folder / extractor.folder_name, Features)
    extract(list(scan(folder / "images").images.values()), extractor, store)
    digests = {str(key): digest for key, digest in store.entries()}
    return ImageSet(sorted(digests), reader_of(store, digests))


def plain_vlad(images: ImageSet, num: int) -> list[Pair]:
    """Return the pairs of the method as it was first published, with 64 words."""
    assert images.features is not None
    found = {name: unit_rows(d) for name, (d, _) in images.features(images.names)}
    rng = np.random.default_rng(images.seed)
    sample = [found[name][rng.permutation(len(found[name]))[:100]] for name in images.names]
    words = learn_words(np.concatenate(sample), 64, rng)
    vectors = unit_rows(np.stack([_vlad(found[name], words) for name in images.names]))
    rows = nearest_others(lambda rows: -vectors[rows] @ vectors.T, len(vectors), num)
    return [Pair.of(images.names[i], images.names[j]) for i, j in rows]


def _vlad(descriptors: ArrayF32, words: ArrayF32) -> ArrayF32:
    nearest = np.argmax(descriptors @ words.T - 0.5 * np.sum(words**2, axis=1), axis=1)
    sums = np.zeros_like(words)
    np.add.at(sums, nearest, descriptors - words[nearest])
    return sums.reshape(-1)


def score(names: Sequence[str], pairs: Sequence[Pair], true: ArrayBool, num: int) -> str:
    """Return pair recall, filled places and precision of some pairs, in percent."""
    row = {name: i for i, name in enumerate(names)}
    chosen = np.zeros_like(true)
    for pair in pairs:
        chosen[row[pair.a], row[pair.b]] = chosen[row[pair.b], row[pair.a]] = True
    hits, possible = (chosen & true).sum(axis=1), true.sum(axis=1)
    some = possible > 0
    places = np.minimum(possible[some], num)
    shares = (
        hits.sum() / possible.sum(),
        np.mean(np.minimum(hits[some], places) / places),
        hits.sum() / chosen.sum(),
    )
    return "/".join(f"{100 * share:5.1f}" for share in shares)


def compare(images: ImageSet, true: ArrayBool) -> None:
    def ours(candidates: int) -> Callable[[int], Sequence[Pair]]:
        def choose(num: int) -> Sequence[Pair]:
            config = Config(method="retrieval", neighbours=num, candidates=candidates)
            return make_pairs(images, config).pairs

        return choose

    print(f"{len(images.names)} images, {int(true.sum()) // 2} true pairs")
    methods: dict[str, Callable[[int], Sequence[Pair]]] = {
        "plain VLAD": lambda num: plain_vlad(images, num),
        "retrieval, candidates=0": ours(0),
        "retrieval": ours(50),
    }
    for title, choose in methods.items():
        scores, seconds = [], 0.0
        for num in NUMBERS:
            start = time.process_time()
            pairs = choose(num)
            seconds = time.process_time() - start
            scores.append(score(images.names, pairs, true, num))
        print(f"{title:24} {'  '.join(scores)}  {seconds:.1f} s", flush=True)


def bench_views(folder: Path, num_rooms: int) -> None:
    kept = folder / "overlap.npy"
    if not kept.exists():
        np.save(kept, make_views(folder, num_rooms, workers=2))
    overlap = np.load(kept)
    images = read_images(folder, Spec.parse("extractors", "sift", {"max_keypoints": 2048}))
    compare(images, np.minimum(overlap, overlap.T) >= MIN_OVERLAP)


def bench_photos(folder: Path, data: Path, extractor: str) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for scene in ("sacre_coeur", "fountain-P11", "phototourism_sample"):
        for path in sorted((data / scene / "images").iterdir()):
            shutil.copy(path, folder / "images" / f"{scene} {path.name}")
    images = read_images(folder, Spec.parse("extractors", extractor, {"max_keypoints": 2048}))
    monuments = [_monument(name) for name in images.names]
    true = np.array([[a == b for a in monuments] for b in monuments])
    np.fill_diagonal(true, False)
    shared = _shared_points(data / "fountain-P11", folder / "fountain")
    row = {name: i for i, name in enumerate(images.names)}
    for (a, b), num in shared.items():
        i, j = row[f"fountain-P11 {a}"], row[f"fountain-P11 {b}"]
        true[i, j] = true[j, i] = num >= MIN_SHARED
    compare(images, true)


def _monument(name: str) -> str:
    scene, _, rest = name.partition(" ")
    return rest.rsplit("_", 2)[0] if scene == "phototourism_sample" else scene


def _shared_points(scene: Path, out: Path) -> dict[tuple[str, str], int]:
    """Return how many points each two images share in a model with the true poses."""
    mapper = {"name": "triangulation", "poses": str(scene / "gt")}
    recipe = Recipe.load("sift", images={"path": str(scene / "images")}, mapper=mapper)
    Run(out, recipe).all()
    model = pycolmap.Reconstruction(out / "model")
    seen: dict[str, set[int]] = {
        image.name: {p.point3D_id for p in image.points2D if p.has_point3D()}
        for image in model.images.values()
    }
    return {(a, b): len(seen[a] & seen[b]) for a, b in combinations(sorted(seen), 2)}


def main(folder: Path, kind: str, arguments: Sequence[str]) -> None:
    if kind == "views":
        bench_views(folder, int(arguments[0]) if arguments else 20)
    else:
        bench_photos(folder, Path(arguments[0]), (*arguments[1:], "sift")[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

"""R2D2: seconds an image, and the poses that come out, against the published network run plainly.

    python -m tests.benchmarks.bench_r2d2 IMAGES TRUTH [--threads 2] [--plain-images 3] [-o ...]

The baseline is the same extractor around the network as it is published: whole images, dilated
convolutions and batch norm one after the other, everything allocated afresh. Both use the same
number of threads and run one after the other; ours is timed as the stage, with decoding and
writing. The poses are those of `run` on the features of each setting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfm_match import Recipe, Run
from sfm_match.extractors import r2d2
from sfm_match.io.images import read_image
from sfm_match.models.r2d2 import R2D2, Maps, load_network
from sfm_match.models.r2d2_detection import PixelDetector
from sfm_match.weights import find

SCALES = {"pyramid": (), "one scale": ("features.min_size=1024",)}
AUC_AT = ("1", "3", "5", "10")


@dataclass(frozen=True)
class Plain:
    """The published network in the place of the folded one."""

    network: R2D2

    def blocks(self, images: Tensor) -> Iterator[Maps]:
        yield self.network(images)


def plain_seconds(paths: list[Path], recipe: Recipe) -> float:
    """Return the seconds that the plain network takes for an image."""
    assert recipe.features is not None
    config = r2d2.Config(**{**recipe.features.config, "subpixel": False})
    network = PixelDetector(Plain(load_network(find(config.weights))))
    # One level after the other, on all cores.
    extractor = r2d2._R2D2(config, network, (0.0, 0.0), "cpu", ThreadPoolExecutor(1))
    images = [read_image(path).pixels for path in paths]
    start = time.perf_counter()
    for image in images:
        extractor(image)
    return (time.perf_counter() - start) / len(images)


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain-images", type=int, default=3)
    parser.add_argument("-o", dest="options", action="append", default=[])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for scales, settings in SCALES.items():
        recipes = {
            precision: Recipe.load(
                "r2d2",
                f"features.precision={precision}",
                *settings,
                *args.options,
                images={"path": str(args.images)},
            )
            for precision in ("fp32", "bf16")
        }
        paths = sorted(args.images.iterdir())[: args.plain_images]
        plain = plain_seconds(paths, recipes["fp32"])
        print(f"{scales:10} plain network: {plain:.2f} s an image, {args.threads} threads")
        for precision, recipe in recipes.items():
            with tempfile.TemporaryDirectory() as out:
                run = Run(out, recipe, threads=args.threads)
                start = time.perf_counter()
                num = run.extract().computed
                seconds = (time.perf_counter() - start) / num
                report = run.all()
                auc = run.evaluate(args.truth).to_dict()["auc"]
            best = report.models[0]
            print(
                f"{scales:10} {precision}: {seconds:.2f} s an image, "
                f"{plain / seconds:.1f} times as fast; all {num}: {seconds * num:.1f} s; "
                f"{best.images} registered, AUC@1/3/5/10 "
                f"{'/'.join(f'{auc[at]:.1f}' for at in AUC_AT)}, "
                f"{best.reprojection_error:.3f} px",
                flush=True,
            )


if __name__ == "__main__":
    main()

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages import extract as stage
from sfm_match.stages.extract import extract, extract_some
from sfm_match.stages.scan import Source, scan
from sfm_match.types import Features, Image
from tests.pictures import noise_picture


def features_of(image: Image) -> Features:
    """Return one keypoint, whose score is the first value of the image."""
    return Features(
        keypoints=np.zeros((1, 2), np.float32),
        scores=image.ravel()[:1].astype(np.float32),
        descriptors=np.zeros((1, 4), np.float32),
        image_size=np.array(image.shape[1::-1], np.int32),
    )


class Batched:
    """Takes several images at once, and remembers how many."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def many(self, images: Sequence[Image]) -> list[Features]:
        self.sizes.append(len(images))
        return [features_of(image) for image in images]


def sources(folder: Path) -> list[Source]:
    for i in range(4):
        picture = noise_picture(20, 30, seed=i)
        picture[0, 0] = 10 * i
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    found = list(scan(folder).images.values())
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    return found


def test_each_image_of_a_batch_gets_its_own_features(tmp_path: Path) -> None:
    batch, extractor = sources(tmp_path), Batched()
    together, alone = extract_some(extractor, batch), extract_some(features_of, batch)
    assert extractor.sizes == [3]  # one cannot be read
    for found in (together, alone):
        assert isinstance(found[1], str)
        assert "1.png" in found[1]
        scores = [one.scores[0] for one in found if isinstance(one, Features)]
        assert scores == [0, 20, 30]


def test_the_largest_images_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def run_component(function: object, spec: Spec, batches: list[list[Source]], *_: object) -> Any:
        for batch in batches:
            order.extend(source.name for source in batch)
            yield batch, [features_of(np.zeros((9, 9), np.uint8)) for _ in batch]

    monkeypatch.setattr(stage, "run_component", run_component)
    for name, picture in {
        "a": np.zeros((20, 30), np.uint8),  # few bytes
        "b": noise_picture(20, 30),
        "c": np.zeros((40, 30), np.uint8),
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    found = list(scan(tmp_path).images.values())
    spec = Spec.parse("extractors", "sift")
    report = extract(found, spec, Store.create(tmp_path / "features", Features, spec))
    assert report.computed == 3
    assert order == ["c.png", "b.png", "a.png"]

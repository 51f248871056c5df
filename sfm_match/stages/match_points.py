"""Two images with annotated keypoints -> their matches, and how many are right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.io.annotations import read_points
from sfm_match.io.images import read_image
from sfm_match.models.point_descriptors import describe_points
from sfm_match.spec import ConfigError, Spec, gives_correspondences
from sfm_match.types import ArrayBool, ArrayF32, Features, Image, Matcher, Matches, View


@dataclass(frozen=True, eq=False)
class PointMatches:
    """What a matcher makes of annotated keypoints; those of the same number belong together.

    Attributes:
        images: both, uint8 (H, W, 3).
        points: float32 (N, 2) of each image.
        matches: rows of the points.
    """

    images: tuple[Image, Image]
    points: tuple[ArrayF32, ArrayF32]
    matches: Matches

    @property
    def correct(self) -> ArrayBool:
        """Which matches are right, bool (M,)."""
        return np.asarray(self.matches.indices[:, 0] == self.matches.indices[:, 1], np.bool_)

    @property
    def accuracy(self) -> float:
        """The share of keypoints that are matched right."""
        return float(np.count_nonzero(self.correct) / len(self.points[0]))

    def to_dict(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        return {
            "points": len(self.points[0]),
            "matches": len(self.matches),
            "correct": int(np.count_nonzero(self.correct)),
            "accuracy": self.accuracy,
            "pairs": [
                [int(a), int(b), float(score)]
                for (a, b), score in zip(self.matches.indices, self.matches.scores, strict=True)
            ],
        }


def match_points(
    images: tuple[Path, Path], points: tuple[Path, Path], spec: Spec, device: str = "cpu"
) -> PointMatches:
    """Match annotated keypoints.

    A matcher that needs descriptors is given RootSIFT at the keypoints, upright, see
    `models.point_descriptors`. Images are taken as their files hold them.

    Args:
        images: two image files.
        points: the file of each image's keypoints, see `read_points`.
        spec: a matcher of features.
        device: the torch device that it runs on.

    Raises:
        ConfigError: points cannot be read, lie outside of their image, or are not as many in both
            images; or the matcher does not match features.
        ImageError: an image cannot be read.
    """
    if gives_correspondences(spec):
        raise ConfigError(f"{spec.name} finds points of its own; choose a matcher of features")
    views = [_view(image, annotated) for image, annotated in zip(images, points, strict=True)]
    found = [view.features for view in views if view.features is not None]
    if len(found[0]) != len(found[1]):
        raise ConfigError(
            f"{points[0]} has {len(found[0])} points, {points[1]} has {len(found[1])}: there must "
            "be as many in both, each the partner of the one with the same number"
        )
    matcher: Matcher[Any, Matches] = spec.build(device)
    encoded = [matcher.encode(view) for view in views]
    (matches,) = matcher.match([(encoded[0], encoded[1])])
    pictures = [view.image for view in views if view.image is not None]
    return PointMatches(
        (pictures[0], pictures[1]), (found[0].keypoints, found[1].keypoints), matches
    )


def _view(path: Path, annotated: Path) -> View:
    image = read_image(path).pixels
    points = read_points(annotated)
    height, width = image.shape[:2]
    outside = ((points < 0) | (points > (width, height))).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        x, y = points[row]
        raise ConfigError(
            f"{annotated}: point {row + 1} is at ({x:g}, {y:g}), outside of {path}, which has "
            f"{width} x {height} pixels"
        )
    features = Features(
        keypoints=points,
        scores=np.ones(len(points), np.float32),
        descriptors=describe_points(image, points),
        image_size=np.array([width, height], np.int32),
    )
    return View(image, features)

"""The data that flows between components and stages, and the protocols that components fulfil.

Pixels follow COLMAP's convention: (x, y), origin at the image's top-left corner, the centre of the
first pixel at (0.5, 0.5), in the full-size raster of the file. Poses are named ``b_from_a``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""uint8 (H, W, 3) in RGB order, or (H, W) grey."""

ArrayF32 = npt.NDArray[np.float32]
ArrayF64 = npt.NDArray[np.float64]
ArrayI32 = npt.NDArray[np.int32]
ArrayBool = npt.NDArray[np.bool_]


def _check(
    owner: object, name: str, dtypes: tuple[type, ...], shape: tuple[int | None, ...]
) -> None:
    """Raise unless the field is an array of one of the dtypes and of the shape (None: any)."""
    value = getattr(owner, name)
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype.type in dtypes
        and value.ndim == len(shape)
        and all(want is None or want == have for want, have in zip(shape, value.shape, strict=True))
    )
    if not fits:
        got = (
            f"{value.dtype} {value.shape}"
            if isinstance(value, np.ndarray)
            else f"{type(value).__name__}"
        )
        wanted = " or ".join(np.dtype(d).name for d in dtypes)
        sizes = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{type(owner).__name__}.{name} must be {wanted} ({sizes}), got {got}")


def _check_finite(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and not np.isfinite(value).all():
            bad = int(np.count_nonzero(~np.isfinite(value)))
            raise ValueError(f"{type(owner).__name__}.{name} has {bad} values that are not finite")


def check_image(image: npt.NDArray[Any]) -> None:
    """Raise ValueError unless the array is an `Image`."""
    is_image = image.dtype == np.uint8 and (
        image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    )
    if not is_image or 0 in image.shape:
        raise ValueError(
            f"an image must be uint8 (H, W) or (H, W, 3), got {image.dtype} {image.shape}"
        )


@dataclass(frozen=True, eq=False, slots=True)
class Features:
    """The local features of one image.

    Attributes:
        keypoints: float32 (N, 2), x and y in full-size pixels.
        scores: float32 (N,), larger is better.
        descriptors: float32 or float16 (N, D).
        image_size: int32 (2,), width and height of the full-size image.
        scales: float32 (N,) in pixels, or None.
        orientations: float32 (N,) in radians, from x towards y, or None.
    """

    keypoints: ArrayF32
    scores: ArrayF32
    descriptors: ArrayF32 | npt.NDArray[np.float16]
    image_size: ArrayI32
    scales: ArrayF32 | None = None
    orientations: ArrayF32 | None = None

    def __post_init__(self) -> None:
        num = len(self.keypoints) if isinstance(self.keypoints, np.ndarray) else None
        _check(self, "keypoints", (np.float32,), (num, 2))
        _check(self, "scores", (np.float32,), (num,))
        _check(self, "descriptors", (np.float32, np.float16), (num, None))
        _check(self, "image_size", (np.int32,), (2,))
        for name in ("scales", "orientations"):
            if getattr(self, name) is not None:
                _check(self, name, (np.float32,), (num,))
        _check_finite(self, "keypoints", "scores", "scales", "orientations")

    def __len__(self) -> int:
        return len(self.keypoints)

    def take(self, rows: npt.NDArray[Any]) -> Features:
        """Return the features of the given rows (indices or a mask)."""
        return Features(
            keypoints=self.keypoints[rows],
            scores=self.scores[rows],
            descriptors=self.descriptors[rows],
            image_size=self.image_size,
            scales=None if self.scales is None else self.scales[rows],
            orientations=None if self.orientations is None else self.orientations[rows],
        )

    def resized(self, image_size: ArrayI32) -> Features:
        """Return the features as they lie in the same image resized to (width, height).

        Scales follow the geometric mean of both factors; orientations are kept, as the aspect is.
        """
        factors = image_size.astype(np.float64) / self.image_size
        mean = float(np.sqrt(factors.prod()))
        return Features(
            keypoints=(self.keypoints * factors).astype(np.float32),
            scores=self.scores,
            descriptors=self.descriptors,
            image_size=image_size,
            scales=None if self.scales is None else (self.scales * mean).astype(np.float32),
            orientations=self.orientations,
        )


@dataclass(frozen=True, order=True, slots=True)
class Pair:
    """Two image names in sorted order, so that a pair has one key. See `Pair.of`."""

    a: str
    b: str

    def __post_init__(self) -> None:
        if self.a >= self.b:
            problem = "the same image twice" if self.a == self.b else "not in sorted order"
            raise ValueError(f"the pair {self.a!r}, {self.b!r} is {problem}")

    @classmethod
    def of(cls, name0: str, name1: str) -> Pair:
        """Return the pair of two different names given in any order."""
        return cls(min(name0, name1), max(name0, name1))


@dataclass(frozen=True, eq=False, slots=True)
class Matches:
    """Matched rows of the features of a pair.

    Attributes:
        indices: int32 (M, 2), rows into the features of a and of b.
        scores: float32 (M,), larger is better.
    """

    indices: ArrayI32
    scores: ArrayF32

    def __post_init__(self) -> None:
        num = len(self.indices) if isinstance(self.indices, np.ndarray) else None
        _check(self, "indices", (np.int32,), (num, 2))
        _check(self, "scores", (np.float32,), (num,))
        _check_finite(self, "scores")
        if num and int(self.indices.min()) < 0:
            raise ValueError(f"Matches.indices has a negative row, {int(self.indices.min())}")

    def __len__(self) -> int:
        return len(self.indices)

    def flipped(self) -> Matches:
        """Return the same matches with the two images exchanged."""
        return Matches(indices=np.ascontiguousarray(self.indices[:, ::-1]), scores=self.scores)


@dataclass(frozen=True, eq=False, slots=True)
class Correspondences:
    """Corresponding points of a pair, as a detector-free matcher finds them.

    Attributes:
        points0: float32 (M, 2), x and y in full-size pixels of the first image.
        points1: float32 (M, 2), the same in the second image.
        scores: float32 (M,), larger is better.
    """

    points0: ArrayF32
    points1: ArrayF32
    scores: ArrayF32

    def __post_init__(self) -> None:
        num = len(self.points0) if isinstance(self.points0, np.ndarray) else None
        _check(self, "points0", (np.float32,), (num, 2))
        _check(self, "points1", (np.float32,), (num, 2))
        _check(self, "scores", (np.float32,), (num,))
        _check_finite(self, "points0", "points1", "scores")

    def __len__(self) -> int:
        return len(self.points0)

    def flipped(self) -> Correspondences:
        """Return the same correspondences with the two images exchanged."""
        return Correspondences(points0=self.points1, points1=self.points0, scores=self.scores)


class TwoViewConfig(IntEnum):
    """COLMAP's classes of two-view geometry, with its numbers."""

    UNDEFINED = 0
    DEGENERATE = 1
    CALIBRATED = 2
    UNCALIBRATED = 3
    PLANAR = 4
    PANORAMIC = 5
    PLANAR_OR_PANORAMIC = 6
    WATERMARK = 7
    MULTIPLE = 8


@dataclass(frozen=True, eq=False, slots=True)
class TwoView:
    """The verified geometry of a pair.

    Attributes:
        config: COLMAP's class of the geometry.
        inliers: bool (M,), over the matches that were verified.
        cam1_from_cam0: float64 (3, 4), where there is one; its translation has length 1 or 0.
        E: float64 (3, 3), essential matrix in normalised camera coordinates, where there is one.
        F: float64 (3, 3), fundamental matrix in pixels, where there is one.
        H: float64 (3, 3), homography in pixels, where there is one.
    """

    config: TwoViewConfig
    inliers: ArrayBool
    cam1_from_cam0: ArrayF64 | None = None
    E: ArrayF64 | None = None
    F: ArrayF64 | None = None
    H: ArrayF64 | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.config, TwoViewConfig):
            raise ValueError(f"TwoView.config must be a TwoViewConfig, got {self.config!r}")
        _check(self, "inliers", (np.bool_,), (None,))
        if self.cam1_from_cam0 is not None:
            _check(self, "cam1_from_cam0", (np.float64,), (3, 4))
        for name in ("E", "F", "H"):
            if getattr(self, name) is not None:
                _check(self, name, (np.float64,), (3, 3))
        _check_finite(self, "cam1_from_cam0", "E", "F", "H")

    @property
    def num_inliers(self) -> int:
        """The number of inliers."""
        return int(np.count_nonzero(self.inliers))


class View(NamedTuple):
    """What a component may see of one image."""

    image: Image | None
    features: Features | None


class Extractor(Protocol):
    """Finds local features in one image; keypoints refer to the image as it was given.

    It may have a method `many` too, for several images: on a GPU it is given some at once.
    """

    def __call__(self, image: Image) -> Features:
        """Return the features of the image."""
        ...


Encoded = TypeVar("Encoded")
Result = TypeVar("Result", Matches, Correspondences)


class Matcher(Protocol[Encoded, Result]):
    """Matches pairs in two phases: what depends on one image alone is computed once per image."""

    def encode(self, view: View) -> Encoded:
        """Return what `match` needs of one image."""
        ...

    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Result]:
        """Match every pair of encoded images."""
        ...


class Refiner(Protocol[Encoded]):
    """Refines correspondences, in the same two phases as a matcher."""

    def encode(self, view: View) -> Encoded:
        """Return what `refine` needs of one image."""
        ...

    def refine(
        self, pairs: Sequence[tuple[Encoded, Encoded, Correspondences]]
    ) -> list[Correspondences]:
        """Return the correspondences of every pair, refined."""
        ...

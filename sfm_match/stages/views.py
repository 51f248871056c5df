"""What components see of an image, and the way of what they find back to its file's raster.

An image is turned upright as EXIF says before a component sees it. What is found in it is turned
back, and dropped where the image's mask is black.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import cv2
import numpy as np

from sfm_match.geometry.raster import (
    points_to_file_raster,
    points_to_upright,
    to_upright,
    unmasked,
    upright,
)
from sfm_match.io.images import ImageError, read_image, read_mask
from sfm_match.stages.scan import Resize, Source, digest_of
from sfm_match.types import (
    ArrayBool,
    ArrayF32,
    ArrayI32,
    Correspondences,
    Features,
    Image,
    View,
)

if TYPE_CHECKING:  # as in `extract`
    from sfm_match.io.store import Store

Encoded = TypeVar("Encoded")


@dataclass(frozen=True, eq=False, slots=True)
class Placement:
    """How an upright picture lies in its file.

    Attributes:
        orientation: EXIF orientation, 1 to 8.
        image_size: int32 (2,), width and height of the file's raster.
        mask: bool (H, W) in the file's raster, True where points are kept; None keeps all.
    """

    orientation: int
    image_size: ArrayI32
    mask: ArrayBool | None

    def in_upright(self, points: ArrayF32) -> ArrayF32:
        """Return points (N, 2) of the file's raster in the upright picture."""
        return points_to_upright(points, self.image_size, self.orientation)

    def in_file(self, points: ArrayF32) -> ArrayF32:
        """Return points (N, 2) of the upright picture in the file's raster."""
        size = self.image_size[::-1] if self.orientation > 4 else self.image_size
        return points_to_file_raster(points, size, self.orientation)


@dataclass(frozen=True, eq=False, slots=True)
class Placed(Generic[Encoded]):
    """What a component made of one image, and how the image lies in its file (None: not read)."""

    encoded: Encoded
    placement: Placement | None


def load_upright(source: Source) -> tuple[Image, Placement]:
    """Decode an image, turned upright, and its mask.

    Raises:
        ImageError: one of them cannot be read, or is not that of the source's digest any more.
    """
    try:
        image = read_image(source.path)
        mask = None if source.mask is None else read_mask(source.mask)
        now = digest_of(source.path, source.mask, source.orientation, source.resize)
        if now != source.digest:
            raise ImageError(f"{source.path}: was changed during the run; run again")
    except OSError as error:
        raise ImageError(str(error)) from error
    pixels = image.pixels
    if source.resize is not None:
        pixels, mask = _resized(pixels, mask, source.resize)
    orientation = source.orientation or image.header.orientation
    image_size = np.array(pixels.shape[1::-1], np.int32)
    return upright(pixels, orientation), Placement(orientation, image_size, mask)


def _resized(
    pixels: Image, mask: ArrayBool | None, resize: Resize
) -> tuple[Image, ArrayBool | None]:
    size = resize.width, resize.height
    flag = cv2.INTER_AREA if resize.interpolation == "area" else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(pixels, size, interpolation=flag), np.uint8)
    if mask is None:
        return resized, None
    nearest = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return resized, np.asarray(nearest, np.bool_)


@dataclass(frozen=True)
class Views:
    """Gives a component what it needs of each image.

    Attributes:
        needs: of ``"image"`` and ``"features"``; features without the image are not turned.
        sources: the images; only where they are needed.
        features: where the features are, for the digests; only where they are needed.
        digests: the digest of each image.
    """

    needs: frozenset[str]
    sources: Mapping[str, Source]
    features: Store[Features] | None
    digests: Mapping[str, bytes]

    def __call__(self, name: str) -> tuple[View, Placement | None]:
        """Return the view of an image, and how it lies in its file where that was read.

        Raises:
            ImageError: the image is needed and cannot be used.
        """
        features = None
        if "features" in self.needs:
            assert self.features is not None
            features = self.features.read(name, self.digests[name])
        if "image" not in self.needs:
            return View(None, features), None
        image, placement = load_upright(self.sources[name])
        turned = None if features is None else to_upright(features, placement.orientation)
        return View(image, turned), placement


def in_file_rasters(
    found: Correspondences, placement0: Placement | None, placement1: Placement | None
) -> Correspondences:
    """Return correspondences of upright pictures in the rasters of the files, masks applied."""
    if placement0 is None or placement1 is None:
        return found
    points0, points1 = placement0.in_file(found.points0), placement1.in_file(found.points1)
    keep = np.ones(len(found), np.bool_)
    for points, mask in ((points0, placement0.mask), (points1, placement1.mask)):
        if mask is not None:
            keep &= unmasked(points, mask)
    return Correspondences(points0[keep], points1[keep], found.scores[keep])


def in_upright_pictures(
    found: Correspondences, placement0: Placement | None, placement1: Placement | None
) -> Correspondences:
    """Return correspondences of the files' rasters in the upright pictures."""
    if placement0 is None or placement1 is None:
        return found
    points0, points1 = placement0.in_upright(found.points0), placement1.in_upright(found.points1)
    return Correspondences(points0, points1, found.scores)

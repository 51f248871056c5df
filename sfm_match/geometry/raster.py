"""Turning, shrinking and masking images, and the features that belong to them.

An image file holds a raster and, in EXIF, an orientation from 1 to 8 that says how to turn it
upright. COLMAP ignores the orientation, so keypoints must refer to the file's raster; features are
found in the upright picture. Each orientation is an optional transposition followed by optional
mirrorings (EXIF 3.0, tag 0x0112). All of it is exact: with corner-origin pixels a mirrored
coordinate is ``width - x``.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayBool, ArrayF32, ArrayI32, Features, Image

_TRANSPOSED = (5, 6, 7, 8)
_MIRRORED_X = (2, 3, 6, 7)
_MIRRORED_Y = (3, 4, 7, 8)


def _check_orientation(orientation: int) -> None:
    if orientation not in range(1, 9):
        raise ValueError(f"an EXIF orientation must be from 1 to 8, got {orientation!r}")


def inverse_orientation(orientation: int) -> int:
    """Return the orientation that undoes the given one: 6 and 8 change places, the rest stay.

    Raises:
        ValueError: the orientation is not from 1 to 8.
    """
    _check_orientation(orientation)
    return {6: 8, 8: 6}.get(orientation, orientation)


def upright(image: Image, orientation: int) -> Image:
    """Return the file's raster, uint8 (H, W) or (H, W, 3), turned upright; no pixel is changed.

    `upright(turned, inverse_orientation(orientation))` turns it back.

    Raises:
        ValueError: the orientation is not from 1 to 8.
    """
    _check_orientation(orientation)
    turned = image.swapaxes(0, 1) if orientation in _TRANSPOSED else image
    if orientation in _MIRRORED_X:
        turned = turned[:, ::-1]
    if orientation in _MIRRORED_Y:
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def _turned_size(size: ArrayI32, orientation: int) -> ArrayI32:
    return size[::-1].copy() if orientation in _TRANSPOSED else size


def points_to_upright(points: ArrayF32, image_size: ArrayI32, orientation: int) -> ArrayF32:
    """Map points, float32 (N, 2), from the file's raster into the upright picture.

    Args:
        points: x, y in corner-origin pixels of the file's raster.
        image_size: int32 (2,), width and height of the file's raster.
        orientation: EXIF orientation, 1 to 8.

    Raises:
        ValueError: the orientation is not from 1 to 8.
    """
    _check_orientation(orientation)
    width, height = _turned_size(image_size, orientation)
    x, y = points.T if orientation not in _TRANSPOSED else points.T[::-1]
    x = np.float32(width) - x if orientation in _MIRRORED_X else x
    y = np.float32(height) - y if orientation in _MIRRORED_Y else y
    return np.stack([x, y], axis=1)


def points_to_file_raster(points: ArrayF32, image_size: ArrayI32, orientation: int) -> ArrayF32:
    """Map points, float32 (N, 2), from the upright picture back into the file's raster.

    Args:
        points: x, y in corner-origin pixels of the upright picture.
        image_size: int32 (2,), width and height of the upright picture.
        orientation: EXIF orientation of the file, 1 to 8.

    Raises:
        ValueError: the orientation is not from 1 to 8.
    """
    return points_to_upright(points, image_size, inverse_orientation(orientation))


def _turned_angles(angles: ArrayF32, orientation: int) -> ArrayF32:
    """Return the angles, from x towards y, of directions that turn with the image: [-pi, pi)."""
    turned = angles.astype(np.float64)
    if orientation in _TRANSPOSED:
        turned = np.pi / 2 - turned
    if orientation in _MIRRORED_X:
        turned = np.pi - turned
    if orientation in _MIRRORED_Y:
        turned = -turned
    return ((turned + np.pi) % (2 * np.pi) - np.pi).astype(np.float32)


def to_upright(features: Features, orientation: int) -> Features:
    """Return features of the file's raster as features of the upright picture.

    Keypoints, image size and orientations (radians, from x towards y, in [-pi, pi)) are turned,
    all else is kept. A mirroring reverses the sense of the angles.

    Raises:
        ValueError: the orientation is not from 1 to 8.
    """
    _check_orientation(orientation)
    if orientation == 1:
        return features
    angles = features.orientations
    return replace(
        features,
        keypoints=points_to_upright(features.keypoints, features.image_size, orientation),
        image_size=_turned_size(features.image_size, orientation),
        orientations=None if angles is None else _turned_angles(angles, orientation),
    )


def to_file_raster(features: Features, orientation: int) -> Features:
    """Return features found in the upright picture as features of the file's raster.

    The inverse of `to_upright`: `features.image_size` is the size of the upright picture, the
    result's is the size of the raster as the file holds it.

    Raises:
        ValueError: the orientation is not from 1 to 8.
    """
    return to_upright(features, inverse_orientation(orientation))


def shrink(image: Image, long_side: int | None) -> Image:
    """Return the image reduced so that its longer side is at most `long_side` pixels.

    The longer side becomes `long_side` exactly; the shorter one is rounded to the nearest pixel
    (halves up), at least 1. Pixels are averages over their area (cv2.INTER_AREA), so a point maps
    by a multiplication with the ratio of the sizes. An image that is small enough, or None as the
    limit, gives the same array.

    Raises:
        ValueError: `long_side` is below 1.
    """
    if long_side is not None and long_side < 1:
        raise ValueError(f"the long side must be at least 1 pixel, got {long_side}")
    height, width = image.shape[:2]
    longest = max(width, height)
    if long_side is None or longest <= long_side:
        return image
    # In integers, because a rounding that depends on floating point could differ by a pixel.
    new_width, new_height = (
        max(1, (2 * side * long_side + longest) // (2 * longest)) for side in (width, height)
    )
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def to_grey(image: Image) -> Image:
    """Return the image as grey (H, W), with the weights of Rec. 601: 0.299, 0.587, 0.114.

    A grey image gives the same array.
    """
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def keep_unmasked(features: Features, mask: ArrayBool) -> Features:
    """Return the features whose keypoints lie on pixels where the mask is True.

    A keypoint (x, y) lies on the pixel floor(x), floor(y); one on or beyond the border takes the
    nearest pixel.

    Args:
        features: in the same raster as the mask.
        mask: bool (H, W), True where features are kept.

    Raises:
        ValueError: the mask's size is not the image's.
    """
    width, height = features.image_size.tolist()
    if mask.shape != (height, width):
        size = " x ".join(str(side) for side in mask.shape[::-1])
        raise ValueError(
            f"the mask is {size} pixels, the image {width} x {height}; "
            "a mask must have the size of its image, as the file holds it"
        )
    return features.take(unmasked(features.keypoints, mask))


def unmasked(points: ArrayF32, mask: ArrayBool) -> ArrayBool:
    """Return which points, float32 (N, 2), lie on pixels where the mask is True: bool (N,).

    A point (x, y) lies on the pixel floor(x), floor(y); one on or beyond the border takes the
    nearest pixel.

    Args:
        points: x, y in corner-origin pixels of the mask's raster.
        mask: bool (H, W).
    """
    height, width = mask.shape
    pixels: npt.NDArray[np.int64] = np.floor(points).astype(np.int64)
    columns, rows = pixels[:, 0].clip(0, width - 1), pixels[:, 1].clip(0, height - 1)
    found: ArrayBool = mask[rows, columns]
    return found

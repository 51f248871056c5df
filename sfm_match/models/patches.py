"""Square patches around keypoints, turned and scaled with them."""

from __future__ import annotations

import torch
from torch import Tensor


def cut_patches(
    image: Tensor, keypoints: Tensor, sides: Tensor, angles: Tensor, size: int
) -> Tensor:
    """Cut square patches from the level of a pyramid that is nearest to their resolution.

    Between pixels the image is interpolated bilinearly, beyond its border the nearest pixel counts.
    Cell (row, column) of a patch is the image where a square of `size` x `size` cells, laid around
    the keypoint with its x axis along the keypoint's direction, has the cell's centre.

    Args:
        image: (H, W) grey, floating point.
        keypoints: (N, 2), x and y in corner-origin pixels.
        sides: (N,) of the squares, in pixels.
        angles: (N,) of the squares' x axis, in radians from x towards y.
        size: cells along a side of a patch.

    Returns:
        (N, 1, size, size), of the image's type.
    """
    # kornia takes long to import, and only those who cut patches need it.
    from kornia.feature import extract_patches_from_pyramid

    # Local affine frames (N, 2, 3): centre and half axes of the squares, where kornia has pixel
    # centres at integers.
    cosines, sines = angles.cos(), angles.sin()
    turns = torch.stack([cosines, -sines, sines, cosines], dim=1).view(-1, 2, 2)
    axes = turns * (sides / 2)[:, None, None]
    frames = torch.cat([axes, keypoints[:, :, None] - 0.5], dim=2)
    patches: Tensor = extract_patches_from_pyramid(image[None, None], frames[None], size)
    return patches[0]

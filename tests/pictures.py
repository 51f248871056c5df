"""Pictures on which any feature extractor finds something, and where the truth is known."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_match.types import Image


def noise_picture(height: int = 160, width: int = 200, seed: int = 0) -> Image:
    """Return grey noise with structure of all sizes, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    layers = [
        sigma * cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), sigma)
        for sigma in (1.5, 3.0, 6.0, 12.0)
    ]
    total = np.sum(layers, axis=0)
    low, high = total.min(), total.max()
    return np.asarray((total - low) * (255 / (high - low)), np.uint8)


def blob_picture(x: int, y: int, height: int = 120, width: int = 150, sigma: float = 3.0) -> Image:
    """Return a bright spot around the array index (x, y), uint8 (H, W)."""
    rows, columns = np.mgrid[:height, :width]
    squared = (columns - x) ** 2 + (rows - y) ** 2
    return np.asarray(40 + 180 * np.exp(-squared / (2 * sigma**2)), np.uint8)

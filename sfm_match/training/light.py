"""What changes between two photographs of one thing beside the view: light, camera, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sfm_match.types import ArrayF32, Image


@dataclass(frozen=True)
class Light:
    """How much pictures change; standard deviations, and shares of the pictures.

    Attributes:
        gamma: of the logarithm of the exponent.
        gain: of the logarithm of the brightness.
        colour: of the logarithm of each channel's brightness.
        offset: of what is added, of 255.
        grey: share that lose their colour.
        shaded: share with brightness that changes across the picture.
        blurred: share that are blurred.
        max_blur: largest standard deviation of the blur, in pixels.
        max_noise: largest standard deviation of the noise, of 255.
        compressed: share that are stored as JPEG.
        min_quality: lowest quality of that.
    """

    gamma: float = 0.3
    gain: float = 0.2
    colour: float = 0.08
    offset: float = 10.0
    grey: float = 0.1
    shaded: float = 0.3
    blurred: float = 0.35
    max_blur: float = 1.3
    max_noise: float = 8.0
    compressed: float = 0.5
    min_quality: int = 40


def changed_light(rng: np.random.Generator, image: Image, light: Light) -> Image:
    """Return a picture, uint8 (H, W, 3), under another light, from another camera."""
    values = (image.astype(np.float32) / 255) ** np.float32(np.exp(rng.normal(0, light.gamma)))
    channels = np.exp(rng.normal(0, light.gain) + rng.normal(0, light.colour, 3))
    values *= (255 * channels).astype(np.float32)
    values += np.float32(rng.normal(0, light.offset))
    if rng.random() < light.shaded:
        values *= _shade(rng, image.shape[:2])[..., None]
    if rng.random() < light.grey:
        values[:] = values.mean(axis=2, keepdims=True)
    if rng.random() < light.blurred:
        blurred = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, light.max_blur))
        values = np.asarray(blurred, np.float32)
    noise = rng.standard_normal(values.shape, np.float32)
    values += np.float32(rng.uniform(0, light.max_noise)) * noise
    changed = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if rng.random() < light.compressed:
        quality = int(rng.integers(light.min_quality, 96))
        _, coded = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])
        changed = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return changed


def _shade(rng: np.random.Generator, shape: tuple[int, ...]) -> ArrayF32:
    """Return smooth factors (H, W) around 1."""
    coarse = np.exp(rng.normal(0, 0.35, (3, 3))).astype(np.float32)
    smooth = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.float32).clip(0.2, 3)

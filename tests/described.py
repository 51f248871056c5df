"""Features of which only the descriptors count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sfm_match.types import Features


def described(descriptors: npt.NDArray[Any], dtype: type[np.floating] = np.float32) -> Features:
    """Return features with given descriptors (N, D), all at one place.

    Args:
        descriptors: of any numbers.
        dtype: as what they are stored, float32 or float16.
    """
    num = len(descriptors)
    return Features(
        keypoints=np.zeros((num, 2), np.float32),
        scores=np.ones(num, np.float32),
        descriptors=descriptors.astype(dtype),
        image_size=np.array([8, 8], np.int32),
    )

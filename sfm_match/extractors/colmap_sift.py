"""SIFT (Lowe, IJCV 2004) as pycolmap computes it on the CPU, by default with RootSIFT descriptors.

RootSIFT: Arandjelovic and Zisserman, "Three things everyone should know to improve object
retrieval", CVPR 2012.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.extractors.sift import as_units
from sfm_match.geometry.raster import shrink, to_grey
from sfm_match.logs import quiet_colmap
from sfm_match.spec import Spec
from sfm_match.types import ArrayF32, ArrayI32, Extractor, Features, Image

VERSION = 1
CONCURRENT = True
LICENCE = "BSD-3-Clause"
LIBRARIES = ("pycolmap",)

# VLFeat's pyramid needs some pixels to stand on; below that there is nothing to find.
_MIN_SIDE = 16


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `colmap_sift`.

    Attributes:
        max_keypoints: the largest-scale features up to about this many (COLMAP keeps whole scale
            levels and adds second orientations, so a few more may come).
        resize: shrink the image so that its long side has at most so many pixels; 0 for never.
        root: RootSIFT descriptors (L1 norm, square root) instead of the L2 norm.
        first_octave: -1 doubles the image first.
        peak_threshold: smallest contrast of an extremum of the difference of Gaussians.
        edge_threshold: largest ratio of principal curvatures.
        upright: fix every orientation to zero.
        affine: estimate an affine shape for each feature (slower).
        domain_size_pooling: DSP-SIFT descriptors (slower).
    """

    max_keypoints: PositiveInt = 8192
    resize: NonNegativeInt = 3200
    root: bool = True
    first_octave: int = -1
    peak_threshold: PositiveFloat = 0.02 / 3
    edge_threshold: PositiveFloat = 10.0
    upright: bool = False
    affine: bool = False
    domain_size_pooling: bool = False


@dataclass(frozen=True)
class _Sift:
    config: Config
    options: pycolmap.FeatureExtractionOptions

    def __call__(self, image: Image) -> Features:
        full_size = np.array(image.shape[1::-1], np.int32)
        grey = to_grey(shrink(image, self.config.resize or None))
        if min(grey.shape) < _MIN_SIDE:
            return _features(np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8), full_size)
        # A new one for each image: VLFeat keeps an octave's gradients, and takes them for those of
        # the next image where that has its first keypoint in the octave of the last one.
        extractor = pycolmap.FeatureExtractor.create(self.options)
        keypoints, descriptors = extractor.extract_from_uint8_array(np.ascontiguousarray(grey))
        size = np.array(grey.shape[::-1], np.int32)
        matrix = pycolmap.keypoints_to_matrix(keypoints)
        return _features(matrix, descriptors.data, size).resized(full_size)


def _features(matrix: ArrayF32, descriptors: npt.NDArray[np.uint8], size: ArrayI32) -> Features:
    keypoints, scales, orientations = np.split(matrix.astype(np.float32), [2, 3], axis=1)
    # The score is the scale: larger features are found again more reliably, and COLMAP ranks so.
    return Features(
        keypoints=np.ascontiguousarray(keypoints),
        scores=scales[:, 0].copy(),
        descriptors=as_units(descriptors),
        image_size=size,
        scales=scales[:, 0].copy(),
        orientations=orientations[:, 0].copy(),
    )


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor; it runs on the CPU whatever the device."""
    norm = pycolmap.Normalization
    options = pycolmap.FeatureExtractionOptions(
        use_gpu=False,
        num_threads=1,
        sift={
            "max_num_features": config.max_keypoints,
            "normalization": norm.L1_ROOT if config.root else norm.L2,
            "first_octave": config.first_octave,
            "peak_threshold": config.peak_threshold,
            "edge_threshold": config.edge_threshold,
            "upright": config.upright,
            "estimate_affine_shape": config.affine,
            "domain_size_pooling": config.domain_size_pooling,
        },
    )
    quiet_colmap()  # it reports every extractor
    return _Sift(config, options)

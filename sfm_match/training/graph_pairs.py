"""Pairs of keypoint sets with known partners, made from single images and from rendered scenes.

Three sources: one image's keypoints, of which each side loses some; keypoints detected again under
a known warp; keypoints detected again in another rendered view, with true parallax and occlusion.
Truth knows nodes that are on both sides, on one, and of which it cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial import cKDTree

from sfm_match.models.generative_graph_losses import UNKNOWN, UNMATCHED
from sfm_match.synthetic.flow import correspondences
from sfm_match.synthetic.lighting import LitScene
from sfm_match.synthetic.render import render
from sfm_match.synthetic.textures import as_rgb, to_image
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Extractor, Features, Image

Partners = npt.NDArray[np.int64]

_NEAR, _FAR = 3.0, 6.0
"""Pixels within which a keypoint is found again, and beyond which it is not."""


@dataclass(frozen=True, eq=False)
class GraphPair:
    """Two sets of keypoints and the truth about them.

    Attributes:
        features0: of the first image.
        features1: of the second image.
        partners0: int64 (N,), the row in the second image, or `UNMATCHED`, or `UNKNOWN`.
        partners1: int64 (M,), the same the other way round.
    """

    features0: Features
    features1: Features
    partners0: Partners
    partners1: Partners

    def take(self, rows0: Partners, rows1: Partners) -> GraphPair:
        """Return the pair with some of its keypoints; who loses a partner is unmatched."""
        return GraphPair(
            self.features0.take(rows0),
            self.features1.take(rows1),
            _renumbered(self.partners0[rows0], rows1, len(self.features1)),
            _renumbered(self.partners1[rows1], rows0, len(self.features0)),
        )


def _renumbered(partners: Partners, kept: Partners, num: int) -> Partners:
    """Return partners (N,) as positions in the kept ones of `num` rows."""
    places = np.full(num, UNMATCHED, np.int64)
    places[kept] = np.arange(len(kept))
    return np.where(partners >= 0, places[np.maximum(partners, 0)], partners)


def limited_pair(
    rng: np.random.Generator, pair: GraphPair, num: int, drop: float = 0.1
) -> GraphPair | None:
    """Return the pair with `num` keypoints a side: the strongest after some are dropped at random.

    Args:
        rng: source of all choices.
        pair: the pair.
        num: how many keypoints each side shall have.
        drop: the share of them that is dropped at random, if there are that many.

    Returns:
        None where a side has fewer than `num`.
    """
    rows = []
    for features in (pair.features0, pair.features1):
        if len(features) < num:
            return None
        left = max(num, round((1 - drop) * len(features)))
        kept = rng.permutation(len(features))[:left]
        rows.append(kept[np.argsort(-features.scores[kept], kind="stable")][:num])
    return pair.take(rows[0], rows[1])


def moved_pair(
    rng: np.random.Generator, pair: GraphPair, *, turn: float = 40.0, stretch: float = 0.3
) -> GraphPair:
    """Move the keypoints of the second image by a random affine map; nothing else changes.

    Against learning where partners lie in the pictures of the training, instead of what they have
    in common. Keypoints may leave the image.

    Args:
        rng: source of all choices.
        pair: the pair.
        turn: standard deviation of the rotation, in degrees.
        stretch: standard deviation of the logarithms of the scales along two directions.
    """
    angles = np.radians([rng.normal(0, turn), rng.uniform(0, 180)])
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    linear = turns[0] @ turns[1] @ np.diag(np.exp(rng.normal(0, stretch, 2))) @ turns[1].T
    side = pair.features1
    centre = side.image_size / 2
    orientations, scales = side.orientations, side.scales
    if orientations is not None:
        arrows = linear @ np.stack([np.cos(orientations), np.sin(orientations)])
        orientations = np.arctan2(arrows[1], arrows[0]).astype(np.float32)
    if scales is not None:
        scales = (scales * np.sqrt(np.linalg.det(linear))).astype(np.float32)
    moved = replace(
        side,
        keypoints=((side.keypoints - centre) @ linear.T + centre).astype(np.float32),
        scales=scales,
        orientations=orientations,
    )
    return replace(pair, features1=moved)


def dropped_pair(
    rng: np.random.Generator,
    features: Features,
    rate: float,
    *,
    jitter: float = 1.0,
    noise: float = 0.1,
) -> GraphPair:
    """Drop keypoints of one image at a rate, on each side others, and disturb the second side.

    Args:
        rng: source of all choices.
        features: of the image.
        rate: the chance of each keypoint to be dropped, on each side.
        jitter: standard deviation of the second side's positions, in pixels.
        noise: of its descriptors, relative to their length.

    Raises:
        ValueError: the rate is not within 0 and 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be from 0 to below 1, got {rate}")
    num = len(features)
    everyone = np.arange(num)
    shape = features.descriptors.shape
    lengths = np.linalg.norm(features.descriptors.astype(np.float32), axis=1, keepdims=True)
    grain = rng.standard_normal(shape) * noise / np.sqrt(shape[1])
    moved = replace(
        features,
        keypoints=(features.keypoints + jitter * rng.standard_normal((num, 2))).astype(np.float32),
        descriptors=(features.descriptors + lengths * grain).astype(np.float32),
    )
    kept0 = np.flatnonzero(rng.random(num) >= rate)
    kept1 = rng.permutation(np.flatnonzero(rng.random(num) >= rate))
    return GraphPair(features, moved, everyone, everyone).take(kept0, kept1)


def partners_by_position(
    features0: Features,
    features1: Features,
    forth: ArrayF64,
    seen0: ArrayBool,
    back: ArrayF64,
    seen1: ArrayBool,
) -> GraphPair:
    """Find who is partner of whom from where keypoints lie in the other image.

    Partners are nearest to each other within 3 px, in the images they are carried to. Unmatched is
    who is not seen in the other image, or has no keypoint within 6 px there. Others are unknown.

    Args:
        features0: N keypoints.
        features1: M keypoints.
        forth: float64 (N, 2), the first image's keypoints in the second image.
        seen0: bool (N,), where they are visible in it.
        back: float64 (M, 2), the second image's keypoints in the first image.
        seen1: bool (M,), the same.
    """
    near0, near1 = _misses(features1, forth, seen0), _misses(features0, back, seen1)
    partners = []
    for seen, (to, miss), (home, _) in ((seen0, near0, near1), (seen1, near1, near0)):
        found = np.where(~seen | (miss > _FAR), UNMATCHED, UNKNOWN).astype(np.int64)
        rows = np.flatnonzero(seen & (miss <= _NEAR))
        agree = rows[home[to[rows]] == rows]
        found[agree] = to[agree]
        partners.append(found)
    both = _mutual(partners[0], partners[1])
    return GraphPair(features0, features1, *both)


def _misses(features: Features, points: ArrayF64, seen: ArrayBool) -> tuple[Partners, ArrayF64]:
    """Return the keypoint nearest to each point (N, 2), and its distance; none where not seen."""
    to, miss = np.full(len(points), -1, np.int64), np.full(len(points), np.inf)
    if len(features) and seen.any():
        miss[seen], to[seen] = cKDTree(features.keypoints).query(points[seen])
    return to, miss


def _mutual(partners0: Partners, partners1: Partners) -> tuple[Partners, Partners]:
    """Make unknown whom only one side calls a partner."""
    cleaned = []
    for own, other in ((partners0, partners1), (partners1, partners0)):
        rows = np.flatnonzero(own >= 0)
        doubtful = rows[other[own[rows]] != rows]
        copy = own.copy()
        copy[doubtful] = UNKNOWN
        cleaned.append(copy)
    return cleaned[0], cleaned[1]


def random_homography(
    rng: np.random.Generator, size: tuple[int, int], *, turn: float, zoom: float, tilt: float
) -> ArrayF64:
    """Return a homography of the image onto itself, seen from another place.

    Args:
        rng: source of all choices.
        size: width and height, in pixels.
        turn: standard deviation of the rotation, in degrees.
        zoom: standard deviation of the logarithm of the scale.
        tilt: how far the corners move towards each other, relative to the image.
    """
    width, height = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    angle, scale = np.radians(rng.normal(0, turn)), np.exp(rng.normal(0, zoom))
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    centre = np.array([width, height]) / 2
    moved = (corners - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
    moved += rng.uniform(-tilt, tilt, (4, 2)) * size + rng.uniform(-0.15, 0.15, 2) * size
    found = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(found, np.float64)


def warped_pair(
    rng: np.random.Generator,
    image: Image,
    extractor: Extractor,
    *,
    turn: float = 15.0,
    zoom: float = 0.25,
    tilt: float = 0.15,
) -> GraphPair:
    """Detect keypoints in an image and again under a random homography and another exposure.

    Args:
        rng: source of all choices.
        image: the image.
        extractor: what finds the keypoints.
        turn: see `random_homography`.
        zoom: see `random_homography`.
        tilt: see `random_homography`.
    """
    height, width = image.shape[:2]
    to_second = random_homography(rng, (width, height), turn=turn, zoom=zoom, tilt=tilt)
    # OpenCV counts from the centre of the first pixel, keypoints from its corner.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    raster = np.linalg.inv(half) @ to_second @ half
    border = tuple(rng.integers(0, 255, 3).tolist())
    second = cv2.warpPerspective(
        as_rgb(image), raster, (width, height), flags=cv2.INTER_AREA, borderValue=border
    )
    to_first = np.asarray(np.linalg.inv(to_second), np.float64)
    features0 = extractor(changed_light(rng, as_rgb(image)))
    features1 = extractor(changed_light(rng, np.asarray(second, np.uint8)))
    forth, seen0 = _carried(features0.keypoints, to_second, (width, height))
    back, seen1 = _carried(features1.keypoints, to_first, (width, height))
    return partners_by_position(features0, features1, forth, seen0, back, seen1)


def changed_light(rng: np.random.Generator, image: Image) -> Image:
    """Return the image (H, W, 3) with another gamma, gain, colour and noise, perhaps blurred."""
    values = 255.0 * (image / 255.0) ** np.exp(rng.normal(0, 0.25))
    values = values * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3)) + rng.normal(0, 8)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.2))
    return to_image(values + rng.normal(0, rng.uniform(0, 6), image.shape))


def _carried(
    points: ArrayF32, homography: ArrayF64, size: tuple[int, int]
) -> tuple[ArrayF64, ArrayBool]:
    """Return points (N, 2) under a homography, and which of them fall into the image."""
    lifted = np.c_[points, np.ones(len(points))].astype(np.float64) @ homography.T
    in_front = lifted[:, 2] > 1e-6
    carried = lifted[:, :2] / np.where(in_front, lifted[:, 2], 1.0)[:, None]
    inside = (carried >= 0).all(axis=1) & (carried < size).all(axis=1)
    return carried, np.asarray(in_front & inside, np.bool_)


@dataclass(frozen=True, eq=False)
class RenderedView:
    """A rendered view of a scene, and what was detected in it.

    Attributes:
        features: of the picture.
        depth: float32 (H, W), as in `synthetic.render.Rendering`.
        camera: its camera.
        cam_from_world: its pose.
    """

    features: Features
    depth: ArrayF32
    camera: pycolmap.Camera
    cam_from_world: pycolmap.Rigid3d


def rendered_view(
    rng: np.random.Generator,
    scene: LitScene,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    extractor: Extractor,
) -> RenderedView:
    """Render a view with a random exposure and noise, and detect keypoints in it."""
    view = render(
        scene,
        camera,
        cam_from_world,
        samples=2,
        exposure=float(rng.uniform(0.75, 1.35)),
        noise=float(rng.uniform(0, 0.02)),
        seed=int(rng.integers(2**31)),
    )
    return RenderedView(extractor(view.image), view.depth, camera, cam_from_world)


def rendered_pair(a: RenderedView, b: RenderedView) -> GraphPair:
    """Return the pair of two views of one scene; their depths say who is whose partner."""
    b_from_a = b.cam_from_world * a.cam_from_world.inverse()
    forth = correspondences(a.depth, b.depth, a.camera, b.camera, b_from_a)
    back = correspondences(b.depth, a.depth, b.camera, a.camera, b_from_a.inverse())
    return partners_by_position(
        a.features,
        b.features,
        *_sampled(a.features.keypoints, forth.points1, forth.valid),
        *_sampled(b.features.keypoints, back.points1, back.valid),
    )


def _sampled(points: ArrayF32, flow: ArrayF32, valid: ArrayBool) -> tuple[ArrayF64, ArrayBool]:
    """Return where points (N, 2) lie in the other image by the flow of the pixel they are in."""
    height, width = valid.shape
    columns = np.clip(points[:, 0].astype(np.int64), 0, width - 1)
    rows = np.clip(points[:, 1].astype(np.int64), 0, height - 1)
    # The rest of a pixel moves as the pixel does.
    inside = points - (np.stack([columns, rows], axis=1) + 0.5)
    seen = valid[rows, columns]
    carried = np.where(seen[:, None], flow[rows, columns] + inside, 0.0)
    return carried.astype(np.float64), seen


Source = Callable[[np.random.Generator], GraphPair]
"""Makes a pair; the same state of the generator makes the same pair."""

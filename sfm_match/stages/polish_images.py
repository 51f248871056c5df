"""Where a model's keypoints lie exactly: each point's views are aligned to one of them.

Of all views of a point the one most like the others is its reference. A patch around the point is
cut out of it, and where the patch lies in the other views is found by its grey values, starting
from what the model says (see `sfm_match.models.lucas_kanade`). The model has averaged the errors of
all keypoints, so it says so better than they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pycolmap
import torch
from torch import Tensor

from sfm_match.geometry.observations import (
    Observations,
    Rows,
    Surfaces,
    reference_views,
    surfaces,
)
from sfm_match.geometry.raster import unmasked
from sfm_match.io.images import ImageError, read_image, read_mask
from sfm_match.models.lucas_kanade import Motion, Settings, align_templates, cut
from sfm_match.models.photometric import pyramid
from sfm_match.stages.executor import run_in_threads
from sfm_match.stages.polish_config import Config
from sfm_match.stages.scan import Source, digest_of
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64

# Points whose patches lie in memory at once.
_POINTS_AT_ONCE = 100_000
_ITERATIONS = 15
# The coarsest level of the images is that on which keypoints are off by so many pixels at most.
_START_PIXELS = 2.0
# The shorter side of the coarsest level.
_MIN_SIDE = 64


@dataclass(frozen=True, eq=False, slots=True)
class Realigned:
    """The keypoints of all observations after the alignment.

    Attributes:
        keypoints: float64 (N, 2); as they were where they could not be aligned.
        aligned: bool (N,), which could.
    """

    keypoints: ArrayF64
    aligned: ArrayBool


@dataclass(frozen=True, eq=False, slots=True)
class _State:
    """How far the alignment has come: for each observation, its patch's motion and success.

    Attributes:
        points: float32 (N, 2), where patches lie.
        linear: float32 (N, 2, 2), what an offset in the reference becomes in the image.
        good: bool (N,), whether that was found.
    """

    points: ArrayF32
    linear: ArrayF32
    good: ArrayBool


def realign(
    model: pycolmap.Reconstruction,
    seen: Observations,
    sources: Sequence[Source],
    config: Config,
    *,
    device: str = "cpu",
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Realigned:
    """Return where the views of a model's points look alike.

    Images are decoded one at a time for each worker, twice for each block of points that they see.
    Blocks are of points with neighbouring references, and bound the memory.

    Args:
        model: the model.
        seen: its observations.
        sources: their images, in the order of `seen.image_ids`.
        config: the settings.
        device: the torch device that aligns.
        workers: how many images are aligned at once.
        progress: called with the share of the work done since the last call, in images.

    Raises:
        ImageError: an image or its mask cannot be read, or has changed.
    """
    found = surfaces(model, seen)
    references = reference_views(seen, found)
    state = _start(seen, found, references)
    blocks = list(_blocks(seen, found, references))
    num_images, told = len(np.unique(seen.images)), 0
    for number, (some, others) in enumerate(blocks, start=1):
        _align_block(seen, state, some, others, sources, config, device, workers)
        if progress:
            progress(num_images * number // len(blocks) - told)
            told = num_images * number // len(blocks)
    moved = np.linalg.norm(state.points - seen.keypoints, axis=1)
    aligned = state.good & (moved <= config.search)
    # A reference is where it is said to be; it takes the others to know that it is right.
    known = np.flatnonzero(references >= 0)
    rows = references[known]
    num_aligned = np.bincount(seen.points, aligned, minlength=len(references))[known]
    aligned[rows] &= num_aligned > 1
    with_reference = np.zeros(len(references), np.bool_)
    with_reference[known] = aligned[rows]
    aligned &= with_reference[seen.points]
    keypoints = np.where(aligned[:, None], state.points, seen.keypoints)
    return Realigned(keypoints.astype(np.float64), aligned)


def _start(seen: Observations, found: Surfaces, references: Rows) -> _State:
    """Return where the model says that patches of the references lie."""
    to_surface = np.linalg.inv(found.jacobians[references])
    linear = found.jacobians @ to_surface[seen.points]
    return _State(
        points=found.projections.astype(np.float32),
        linear=linear.astype(np.float32),
        good=np.zeros(len(seen), np.bool_),
    )


def _blocks(seen: Observations, found: Surfaces, references: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield references, sorted by image, some at a time, and the other views of their points."""
    known = np.sort(references[references >= 0])
    is_other = found.visible.copy()
    is_other[known] = False
    block_of = np.full(len(references), -1, np.int64)
    block_of[seen.points[known]] = np.arange(len(known)) // _POINTS_AT_ONCE
    for block, start in enumerate(range(0, len(known), _POINTS_AT_ONCE)):
        others = np.flatnonzero(is_other & (block_of[seen.points] == block))
        yield known[start : start + _POINTS_AT_ONCE], others


def _align_block(
    seen: Observations,
    state: _State,
    references: Rows,
    rows: Rows,
    sources: Sequence[Source],
    config: Config,
    device: str,
    workers: int,
) -> None:
    """Align the views of some points; their rows of `state` are changed.

    Args:
        seen: all observations.
        state: of all observations.
        references: of the points.
        rows: the other views of the points.
        sources: the images.
        config: the settings.
        device: the torch device that aligns.
        workers: how many images are aligned at once.
    """
    place = np.full(len(seen.point_ids), -1, np.int64)
    place[seen.points[references]] = np.arange(len(references))
    side = 2 * config.radius + 3
    templates = torch.zeros(len(references), side, side, device=device)
    for level in range(_depth(sources, config.search), -1, -1):
        for some, (patches, good) in run_in_threads(
            (
                (some, partial(_cut, source, level, state.points[some], config.radius, device))
                for source, some in _by_image(seen, references, sources)
            ),
            workers,
            _use_one_core,
        ):
            templates[torch.from_numpy(place[seen.points[some]])] = patches
            state.good[some] = good
        settings = Settings(config.radius, affine=level == 0, iterations=_ITERATIONS)
        for some, found in run_in_threads(
            (
                (
                    some,
                    partial(
                        _align,
                        source,
                        level,
                        templates[torch.from_numpy(place[seen.points[some]])],
                        state.points[some],
                        state.linear[some],
                        settings,
                        config.min_similarity,
                    ),
                )
                for source, some in _by_image(seen, rows, sources)
            ),
            workers,
            _use_one_core,
        ):
            kept = some[found.good]
            state.points[kept] = found.points[found.good]
            state.linear[kept] = found.linear[found.good]
            state.good[some] = found.good


def _by_image(
    seen: Observations, rows: Rows, sources: Sequence[Source]
) -> Iterator[tuple[Source, Rows]]:
    """Yield images with those of the observations that are theirs."""
    rows = np.sort(rows)  # by image too
    images, first = np.unique(seen.images[rows], return_index=True)
    for image, some in zip(images.tolist(), np.split(rows, first[1:]), strict=True):
        yield sources[image], some


def _depth(sources: Sequence[Source], search: float) -> int:
    """Return the coarsest level of the images that keypoints are to be found on."""
    shortest = min(min(source.header.width, source.header.height) for source in sources)
    wanted = math.ceil(math.log2(max(search / _START_PIXELS, 1)))
    return max(0, min(wanted, int(math.log2(max(shortest / _MIN_SIDE, 1)))))


def _cut(
    source: Source, level: int, points: ArrayF32, radius: int, device: str
) -> tuple[Tensor, ArrayBool]:
    """Return the patches of an image around points, and which of these may be used."""
    at = torch.from_numpy(points * np.float32(0.5**level)).to(device)
    return cut(_read(source, level, device), at, radius), _usable(source, points)


@torch.inference_mode()
def _align(
    source: Source,
    level: int,
    templates: Tensor,
    points: ArrayF32,
    linear: ArrayF32,
    settings: Settings,
    min_similarity: float,
) -> _State:
    """Return where patches of an image look like templates, and which do and may be used."""
    device, scale = templates.device, np.float32(0.5**level)
    start = Motion(torch.from_numpy(points * scale).to(device), torch.from_numpy(linear).to(device))
    found = align_templates(templates, _read(source, level, str(device)), start, settings)
    alike = found.converged & (found.similarity >= min_similarity)
    moved = np.asarray(found.motion.points1.cpu().numpy() / scale, np.float32)
    return _State(
        points=moved,
        linear=np.asarray(found.motion.linear.cpu().numpy(), np.float32),
        good=alike.cpu().numpy() & _usable(source, moved),
    )


def _read(source: Source, level: int, device: str) -> Tensor:
    """Decode an image; return a level of its pyramid, (1, 1, H, W).

    Raises:
        ImageError: it cannot be read, or is not that of the source's digest any more.
    """
    try:
        grey = read_image(source.path, grey=True).pixels
        if digest_of(source.path, source.mask, source.orientation) != source.digest:
            raise ImageError(f"{source.path}: was changed during the run; run again")
    except OSError as error:
        raise ImageError(str(error)) from error
    return pyramid(torch.from_numpy(grey).to(device), level + 1).levels[level]


def _usable(source: Source, points: ArrayF32) -> ArrayBool:
    """Return which points lie in an image and not on its mask's black."""
    size = np.array([source.header.width, source.header.height], np.float32)
    inside = np.asarray(((points >= 0) & (points <= size)).all(axis=1), np.bool_)
    if source.mask is not None:
        inside &= unmasked(points, read_mask(source.mask))
    return inside


def _use_one_core() -> None:
    """Keep torch from using several threads for one operation of this thread."""
    torch.set_num_threads(1)

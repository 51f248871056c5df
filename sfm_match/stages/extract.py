"""Images -> features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sfm_match.geometry.raster import keep_unmasked, to_file_raster
from sfm_match.io.images import ImageError
from sfm_match.spec import Spec
from sfm_match.stages.executor import run_component
from sfm_match.stages.scan import Source
from sfm_match.stages.views import Placement, load_upright
from sfm_match.types import Features, Image

if TYPE_CHECKING:  # worker processes start sooner without HDF5
    from sfm_match.io.store import Store

_IMAGES_PER_BATCH_ON_GPU = 8


@dataclass
class ExtractReport:
    """What extraction did.

    Attributes:
        computed: images whose features were computed now.
        reused: images whose features were there already.
        failures: image name -> why it is left out.
    """

    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def extract(
    sources: Sequence[Source],
    spec: Spec,
    store: Store[Features],
    *,
    device: str = "cpu",
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> ExtractReport:
    """Extract the features of every image that the store does not hold yet.

    Keypoints are stored in the raster of the image's file, as pycolmap's cameras are, whatever
    its EXIF orientation. An image that cannot be decoded is reported and left out.
    """
    todo = [source for source in sources if (source.name, source.digest) not in store]
    todo.sort(key=_size, reverse=True)  # what other cores wait for at the end is then short
    report = ExtractReport(reused=len(sources) - len(todo))
    if progress:
        progress(report.reused)
    with store.writer() as writer:
        step = 1 if device == "cpu" else _IMAGES_PER_BATCH_ON_GPU
        batches = [todo[start : start + step] for start in range(0, len(todo), step)]
        for batch, found in run_component(extract_some, spec, batches, device, workers):
            for source, features in zip(batch, found, strict=True):
                if isinstance(features, Features):
                    writer.add(source.name, source.digest, features)
                    report.computed += 1
                else:
                    report.failures[source.name] = features
            if progress:
                progress(len(batch))
    return report


def _size(source: Source) -> tuple[int, int]:
    """Return by what to guess how long an image takes: its pixels, and the bytes of its file."""
    try:
        num_bytes = source.path.stat().st_size
    except OSError:  # said when it is read
        num_bytes = 0
    return source.header.width * source.header.height, num_bytes


def extract_some(extractor: Any, sources: Sequence[Source]) -> list[Features | str]:
    """Return the features of each image, or why there are none."""
    loaded = [_load(source) for source in sources]
    images = [one[0] for one in loaded if not isinstance(one, str)]
    # An extractor may take several images at once.
    many = getattr(extractor, "many", None)
    found = iter(many(images) if many else map(extractor, images))
    return [one if isinstance(one, str) else _place(next(found), one[1]) for one in loaded]


def _load(source: Source) -> tuple[Image, Placement] | str:
    try:
        return load_upright(source)
    except ImageError as error:
        return str(error)


def _place(features: Features, placement: Placement) -> Features:
    found = to_file_raster(features, placement.orientation)
    return found if placement.mask is None else keep_unmasked(found, placement.mask)

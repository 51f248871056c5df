"""Images -> features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sfm_match.geometry.raster import keep_unmasked, to_file_raster, upright
from sfm_match.io.images import ImageError, read_image, read_mask
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.executor import run_component
from sfm_match.stages.scan import Source, digest_of
from sfm_match.types import Features


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
    report = ExtractReport(reused=len(sources) - len(todo))
    if progress:
        progress(report.reused)
    with store.writer() as writer:
        for source, features in run_component(extract_one, spec, todo, device, workers):
            if isinstance(features, Features):
                writer.add(source.name, source.digest, features)
                report.computed += 1
            else:
                report.failures[source.name] = features
            if progress:
                progress(1)
    return report


def extract_one(extractor: Any, source: Source) -> Features | str:
    """Return the features of one image, or why there are none."""
    try:
        image = read_image(source.path)
        mask = None if source.mask is None else read_mask(source.mask)
        if digest_of(source.path, source.mask) != source.digest:
            return f"{source.path}: was changed during the run; run again"
    except (ImageError, OSError) as error:
        return str(error)
    header = image.header
    if mask is not None and mask.shape != (header.height, header.width):
        size = f"{mask.shape[1]} x {mask.shape[0]}"
        return f"{source.mask}: the mask is {size}, its image {header.width} x {header.height}"
    pixels = upright(image.pixels, header.orientation)
    found = to_file_raster(extractor(pixels), header.orientation)
    return found if mask is None else keep_unmasked(found, mask)

"""What is worth knowing of the images of a run that are not left out of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sfm_match.io.digests import digest
from sfm_match.io.images import list_others
from sfm_match.io.store import Store
from sfm_match.stages.scan import Source
from sfm_match.types import Features


def remarks_on(sources: Mapping[str, Source], features: Store[Features] | None) -> dict[str, str]:
    """Return what is worth knowing of some images, by name.

    It is said of an image that others are the same file, and that it has no keypoints.

    Args:
        sources: the images.
        features: where their features are, if they have any.
    """
    remarks: dict[str, list[str]] = defaultdict(list)
    for first, *others in _same_files(sources):
        for name in others:
            remarks[name].append(f"is the same file as {first}")
    for name, source in sources.items() if features is not None else ():
        assert features is not None
        if (name, source.digest) in features and not features.num_rows(name, source.digest):
            remarks[name].append("has no keypoints, so nothing matches it")
    return {name: "; ".join(said) for name, said in sorted(remarks.items())}


def _same_files(sources: Mapping[str, Source]) -> list[list[str]]:
    """Return the names of each group of images with the same bytes."""
    by_size = defaultdict(list)
    for source in sources.values():
        by_size[source.path.stat().st_size].append(source)
    groups: dict[str, list[str]] = defaultdict(list)
    for candidates in by_size.values():
        for source in candidates if len(candidates) > 1 else ():
            groups[_content(source)].append(source.name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _content(source: Source) -> str:
    """Return the SHA-256 of an image's bytes alone."""
    is_of_image = source.mask is None and source.orientation is None
    return source.digest.hex() if is_of_image else digest(source.path)


def ignored_files(images: Path, out: Path) -> list[str]:
    """Return the files below a folder of images that are no images, but for those of `out`."""
    folder, inside = images.resolve(), out.resolve()
    return [name for name in list_others(images) if inside not in (folder / name).parents]

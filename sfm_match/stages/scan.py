"""Looks at a folder of images: which there are, what they are, what they are made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.io.digests import combine_digests, digest
from sfm_match.io.exif import CameraTags, ImageHeader, camera_tags, read_header
from sfm_match.io.images import ImageError, list_images
from sfm_match.stages.executor import num_cores
from sfm_match.stages.masks import check_mask, find_masks, without_masks


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[images]`.

    Attributes:
        path: the folder of images; the command line fills it in.
        masks: a mask for all images, or a folder of masks (`a/b.jpg.png` for `a/b.jpg`, `a.png`
            for all images in `a`); keypoints on black are dropped.
    """

    path: Path | None = None
    masks: Path | None = None


class Resize(NamedTuple):
    """A size that an image is given, in its file's raster, before anything is found in it."""

    width: int
    height: int
    interpolation: Literal["linear", "area"]
    """`linear` takes four pixels and aliases where it shrinks; `area` averages all."""


@dataclass(frozen=True)
class Source:
    """One image of a folder.

    Attributes:
        name: its name relative to the folder, with `/` between.
        path: its file.
        mask: the file of its mask, or None.
        digest: SHA-256 of the bytes of both.
        header: its size and EXIF orientation.
        camera: what EXIF says of the camera.
        orientation: EXIF orientation with which features are extracted in place of the file's;
            it is part of the digest.
        resize: size in which features are extracted and stored in place of the file's, as the
            header says too; it is part of the digest.
    """

    name: str
    path: Path
    mask: Path | None
    digest: bytes
    header: ImageHeader
    camera: CameraTags
    orientation: int | None = None
    resize: Resize | None = None

    def with_orientation(self, orientation: int) -> Source:
        """Return the same image, of which features are extracted as if EXIF said this."""
        return replace(
            self,
            digest=digest_of(self.path, self.mask, orientation, self.resize),
            orientation=orientation,
        )

    def with_size(self, resize: Resize) -> Source:
        """Return the same image, of which features are extracted and stored in another size."""
        return replace(
            self,
            digest=digest_of(self.path, self.mask, self.orientation, resize),
            header=ImageHeader(resize.width, resize.height, self.header.orientation),
            resize=resize,
        )


@dataclass(frozen=True)
class Sources:
    """The images of a folder, sorted by name, and why some could not be read."""

    images: dict[str, Source]
    failures: dict[str, str] = field(default_factory=dict)


def digest_of(
    path: Path, mask: Path | None, orientation: int | None = None, resize: Resize | None = None
) -> bytes:
    """Return the SHA-256 of an image and its mask, `Source.orientation` and `Source.resize`."""
    found = bytes.fromhex(digest(path))
    if mask is not None:
        found = combine_digests(found, bytes.fromhex(digest(mask)))
    if orientation is not None:
        found = combine_digests(found, b"EXIF", bytes([orientation]))
    return found if resize is None else combine_digests(found, repr(tuple(resize)).encode())


def scan(root: Path, masks: Path | None = None, names: Collection[str] | None = None) -> Sources:
    """Read the headers and digests of images below a folder: those named, or else all.

    Raises:
        ImageError: there is no such folder, or no image in it; or no such masks.
    """
    names = without_masks(root, masks, list_images(root)) if names is None else sorted(names)
    look = partial(_look, root, find_masks(root, masks, names))
    images: dict[str, Source] = {}
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(num_cores()) as pool:
        for name, found in zip(names, pool.map(look, names), strict=True):
            if isinstance(found, Source):
                images[name] = found
            else:
                failures[name] = found
    return Sources(images, failures)


def _look(root: Path, masks: Mapping[str, Path], name: str) -> Source | str:
    path, mask = root / name, masks.get(name)
    try:
        header, camera = read_header(path), camera_tags(path)
        if mask is not None:
            check_mask(mask, header)
        return Source(name, path, mask, digest_of(path, mask), header, camera)
    except (ImageError, OSError) as error:
        return str(error)

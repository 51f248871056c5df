"""Looks at a folder of images: which there are, what they are, what they are made of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.io.exif import CameraTags, ImageHeader, camera_tags, read_header
from sfm_match.io.images import ImageError, digest, find_mask, list_images
from sfm_match.io.store import combine_digests
from sfm_match.stages.executor import num_cores


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[images]`.

    Attributes:
        path: the folder of images; the command line fills it in.
        masks: a mask for all images, or a folder of masks (`a/b.jpg.png` for `a/b.jpg`);
            keypoints on black are dropped.
    """

    path: Path | None = None
    masks: Path | None = None


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
    """

    name: str
    path: Path
    mask: Path | None
    digest: bytes
    header: ImageHeader
    camera: CameraTags


@dataclass(frozen=True)
class Sources:
    """The images of a folder, sorted by name, and why some could not be read."""

    images: dict[str, Source]
    failures: dict[str, str] = field(default_factory=dict)


def digest_of(path: Path, mask: Path | None) -> bytes:
    """Return the SHA-256 of the bytes of an image and its mask."""
    image = bytes.fromhex(digest(path))
    return image if mask is None else combine_digests(image, bytes.fromhex(digest(mask)))


def scan(root: Path, masks: Path | None = None) -> Sources:
    """Read the headers and digests of all images below a folder.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    names = list_images(root)
    images: dict[str, Source] = {}
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(num_cores()) as pool:
        for name, found in zip(names, pool.map(partial(_look, root, masks), names), strict=True):
            if isinstance(found, Source):
                images[name] = found
            else:
                failures[name] = found
    return Sources(images, failures)


def _look(root: Path, masks: Path | None, name: str) -> Source | str:
    path = root / name
    mask = find_mask(masks, name) if masks else None
    try:
        header, camera = read_header(path), camera_tags(path)
        return Source(name, path, mask, digest_of(path, mask), header, camera)
    except (ImageError, OSError) as error:
        return str(error)

"""Which file is the mask of which image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfm_match.io.exif import ImageHeader, read_header
from sfm_match.io.images import ImageError, find_mask
from sfm_match.logs import log


def without_masks(root: Path, masks: Path | None, names: Sequence[str]) -> list[str]:
    """Return the images of a folder that are not masks: these may lie among the images.

    Args:
        root: the folder of images.
        masks: a mask or a folder of masks, at any place.
        names: what there is below `root`.

    Raises:
        ImageError: all of them are masks, or there is no such file or folder of masks.
    """
    if masks is None:
        return list(names)
    used = set(_find(root, masks, names).values())
    folder, top = masks.resolve(), root.resolve()
    is_inside = folder != top and folder.is_relative_to(top)  # a file, or a folder of masks only
    left = [
        name
        for name in names
        if root / name not in used
        and not (is_inside and (root / name).resolve().is_relative_to(folder))
    ]
    if not left:
        raise ImageError(f"{root}: holds no image besides the masks in {masks}")
    return left


def find_masks(root: Path, masks: Path | None, names: Sequence[str]) -> dict[str, Path]:
    """Return the masks of those images that have one (see `find_mask`).

    Raises:
        ImageError: there is no such file or folder, or no image has a mask in it.
    """
    if masks is None:
        return {}
    found = _find(root, masks, names)
    if not found and names:
        raise ImageError(
            f"{masks}: holds no mask of any image; that of {names[0]} would be {names[0]}.png"
        )
    log.info("masks: %d of %d images have one", len(found), len(names))
    return found


def _find(root: Path, masks: Path, names: Sequence[str]) -> dict[str, Path]:
    if masks.resolve() == root.resolve():  # by whatever path
        masks = root
    found = ((name, find_mask(masks, name, root / name)) for name in names)
    return {name: mask for name, mask in found if mask is not None}


def check_mask(mask: Path, image: ImageHeader) -> None:
    """Raise unless a mask has the size of its image.

    Raises:
        ImageError: it has not, or it cannot be read.
    """
    header = read_header(mask)
    size, wanted = (header.width, header.height), (image.width, image.height)
    if size != wanted:
        turned = size == wanted[::-1] and image.orientation != 1
        raise ImageError(
            f"{mask}: the mask is {size[0]} x {size[1]} pixels, its image {wanted[0]} x {wanted[1]}"
            + ("; turn it back, a mask lies as the image's file does" if turned else "")
        )

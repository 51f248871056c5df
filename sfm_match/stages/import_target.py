"""Which images of a run are which of a database that somebody else made, and their cameras."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database_images import Contents


@dataclass(frozen=True)
class Target:
    """What an import finds and adds.

    Attributes:
        found: names of the images that are there, sorted.
        added: names of the images to be added, sorted.
        missing: names of the images that are neither there nor added, sorted.
        image_ids: of the images there and added, by name.
        cameras: of the images there and added, with the ids of the database: its own cameras for
            the images there; for the added ones its own where they share one, or else new ones.
        new_cameras: the ids of the new cameras.
        conflicts: what speaks against the import, a line each.
    """

    found: list[str]
    added: list[str]
    missing: list[str]
    image_ids: Mapping[str, int]
    cameras: Cameras
    new_cameras: list[int]
    conflicts: list[str]

    @property
    def content(self) -> list[tuple[object, ...]]:
        """What an import depends on; equal for two states of a database that are as good."""
        camera_of = self.cameras.of_image
        return [
            (name, image_id, camera_of[name], self.cameras.digest(name))
            for name, image_id in sorted(self.image_ids.items())
        ]


def find_target(contents: Contents, ours: Cameras, add_images: bool) -> Target:
    """Find the images of a run in a database.

    Args:
        contents: the database.
        ours: the run's cameras, of all its images that have features; their sizes are the images'.
        add_images: whether images that are not there are to be added.
    """
    names = sorted(ours.of_image)
    there = [name for name in names if name in contents.images]
    absent = [name for name in names if name not in contents.images]
    added = absent if add_images else []
    of_image = {name: contents.images[name].camera_id for name in there}
    shared = _shared_cameras(of_image, ours)
    cameras = dict(contents.cameras)
    new: dict[int, int] = {}  # our camera id -> the new one of the database
    for name in added:
        our_id = ours.of_image[name]
        if our_id not in shared and our_id not in new:
            new[our_id] = max(cameras, default=0) + 1
            cameras[new[our_id]] = copy(ours[name])
            cameras[new[our_id]].camera_id = new[our_id]
        of_image[name] = shared[our_id] if our_id in shared else new[our_id]
    used = Cameras(cameras, of_image, ours.fixed)
    # Rows of pairs may be left of an image that was deleted.
    taken = contents.matched.union(row.image_id for row in contents.images.values())
    first = max(taken, default=0) + 1
    return Target(
        found=there,
        added=added,
        missing=[] if add_images else absent,
        image_ids={
            **{name: contents.images[name].image_id for name in there},
            **{name: image_id for image_id, name in enumerate(added, start=first)},
        },
        cameras=used,
        new_cameras=sorted(new.values()),
        conflicts=[
            *_other_names(absent, contents.images, set(there)),
            *_other_sizes(used, ours),
            *_rigs_of_added(added, used, contents),
        ],
    )


def _shared_cameras(of_image: Mapping[str, int], ours: Cameras) -> dict[int, int]:
    """Return the database's camera of each of ours of which all images there have the same one."""
    found: dict[int, set[int]] = {}
    for name, camera_id in of_image.items():
        found.setdefault(ours.of_image[name], set()).add(camera_id)
    return {our_id: ids.pop() for our_id, ids in found.items() if len(ids) == 1}


def _other_sizes(used: Cameras, ours: Cameras) -> Iterator[str]:
    for name in sorted(used.of_image):
        camera, own = used[name], ours[name]
        if (camera.width, camera.height) != (own.width, own.height):
            yield (
                f"{name}: the image has {own.width} x {own.height} pixels, its camera in the "
                f"database (id {used.of_image[name]}) {camera.width} x {camera.height}"
            )


def _rigs_of_added(added: Iterable[str], used: Cameras, contents: Contents) -> Iterator[str]:
    for name in added:
        rig = contents.rigs.get(used.of_image[name])
        if rig is not None and rig.num_sensors > 1:
            yield (
                f"{name}: its camera (id {used.of_image[name]}) is one of {rig.num_sensors} of rig "
                f"{rig.rig_id}, and only COLMAP knows to which frame the image belongs; add it "
                "with COLMAP (import_images, apply_rig_config) first"
            )


def _other_names(absent: Iterable[str], there: Iterable[str], found: set[str]) -> Iterator[str]:
    """Say which images the database has under another form of their name.

    That is: in other letter case, Unicode normal form or slashes, or relative to another folder.
    """
    others = sorted(set(there) - found, reverse=True)
    whole = {_plain(name): name for name in others}
    of_ending = {ending: name for name in others for ending in _endings(name)}
    for name in absent:
        shorter = (whole[ending] for ending in _endings(name) if ending in whole)
        other = of_ending.get(_plain(name)) or next(shorter, None)
        if other is not None:
            yield (
                f"{name}: seems to be {other} in the database; names must be the same, relative to "
                "the same folder of images"
            )


def _plain(name: str) -> str:
    slashed = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return "/".join(part for part in slashed.split("/") if part not in ("", "."))


def _endings(name: str) -> Iterator[str]:
    """Yield a name as it is, without its first folder, without the first two, and so on."""
    parts = _plain(name).split("/")
    for start in range(len(parts)):
        yield "/".join(parts[start:])

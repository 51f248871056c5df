"""The settings of the pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)
from pydantic.dataclasses import dataclass as config_dataclass
from pydantic_core import PydanticCustomError

from sfm_match.spec import nearest

METHODS = (
    "exhaustive",
    "sequential",
    "retrieval",
    "covisibility",
    "poses",
    "spatial",
    "file",
)


def _check_method(text: str) -> str:
    parts = split_method(text)
    for name in parts:
        if name not in METHODS:
            offer = nearest(name, METHODS)
            raise PydanticCustomError(
                "method", "no method named '{name}'; {offer}", {"name": name, "offer": offer}
            )
    if len(set(parts)) < len(parts):
        raise PydanticCustomError("method", "names a method twice")
    return "+".join(parts)


def split_method(text: str) -> list[str]:
    """Return the names of the methods in a text such as ``sequential+retrieval``."""
    return [part.strip() for part in text.split("+")]


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[pairs]`.

    Attributes:
        method: one of those below, or several joined by ``+``, such as ``sequential+retrieval``:
            then all their pairs.
            `exhaustive` pairs every image with every other.
            `sequential` pairs images that are near each other in the order of their names, where
            numbers count as numbers (`img2` before `img10`).
            `retrieval` pairs each image with those that look most like it, by its features.
            `covisibility` pairs each image with those that share most points of a COLMAP model.
            `poses` pairs each image with the nearest ones in a COLMAP model that look the same way.
            `spatial` pairs each image with the nearest ones by GPS.
            `file` reads a list of pairs.
        neighbours: retrieval, covisibility, poses, spatial: with how many of the best ones each
            image is paired; a pair counts where either image chose the other. And of `expand`: how
            many each image gets in a round.
        overlap: sequential: with how many of the following images each image is paired.
        quadratic: sequential: and with those 1, 2, 4, ... 2^(overlap - 1) images away, which closes
            gaps at little cost (COLMAP's quadratic overlap, except that COLMAP 4 then leaves out
            the other distances within the overlap).
        loop_every: sequential: every so many images, look for the place among all others, and
            pair; 0 for never.
        loop_neighbours: sequential: with how many images then, each of another stretch.
        candidates: retrieval, and `loop_every`: for how many of those that look most like an
            image the nearest neighbours of its best descriptors are sought, to choose better among
            them; 0 for none, which takes half the time and finds fewer.
        words: retrieval, and `loop_every`: the size of the vocabulary.
        path: file: the list, two names a line; relative paths start at the working directory.
        model: covisibility, poses: the folder of the COLMAP model.
        min_shared: covisibility: the smallest number of points that two images share.
        max_angle: poses: the largest angle between the optical axes, in degrees.
        max_distance: poses, spatial: the largest distance between the cameras, in the model's
            units, or in metres; 0 for any.
        ignore_altitude: spatial: leave the altitude out, which GPS measures poorly.
        unplaced: what happens to an image that is not in the model, or has no GPS position:
            `leave_out` makes no pairs of it, `exhaustive` pairs it with every image. Either way it
            is reported.
        expand: in how many rounds at most neighbours of neighbours are added: where i-j and j-k
            are verified, i-k is matched and verified too; until there are no new ones. 0 for none.
        expand_inliers: the smallest number of inliers of a pair that others are added over.
    """

    method: Annotated[str, AfterValidator(_check_method)] = "exhaustive"
    neighbours: PositiveInt = 20
    overlap: PositiveInt = 10
    quadratic: bool = True
    loop_every: NonNegativeInt = 0
    loop_neighbours: PositiveInt = 5
    candidates: NonNegativeInt = 50
    words: PositiveInt = 512
    path: Path | None = None
    model: str = ""
    min_shared: PositiveInt = 15
    max_angle: Annotated[float, Field(gt=0, le=180)] = 45.0
    max_distance: NonNegativeFloat = 0.0
    ignore_altitude: bool = True
    unplaced: Literal["leave_out", "exhaustive"] = "leave_out"
    expand: NonNegativeInt = 0
    expand_inliers: PositiveInt = 30

    @property
    def methods(self) -> list[str]:
        """The names of the methods."""
        return split_method(self.method)

"""Which pairs a training of image networks sees: pictures, made-up ones, rooms, a COLMAP model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.spec import ConfigError
from sfm_match.training.light import Light
from sfm_match.training.mixed import mixing, mixtures
from sfm_match.training.pairs import Source
from sfm_match.training.pictures import LICENCES, free_photographs, made_up, read_pictures
from sfm_match.training.rendered import Rooms, rendering
from sfm_match.training.tracked import Tracked, tracking
from sfm_match.training.warps import Warps, warping
from sfm_match.types import Image

_HELD_OUT = 5
"""Every so many-th photograph is kept for the evaluation, where there are as many."""

_NUM_ON_WALLS = 80
"""Mixed pictures that hang in the rooms beside the photographs."""

FREE = "free"
"""The name of the photographs that come with packages."""

Progress = Callable[[str, int], Callable[[int], object]]


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DataConfig:
    """Options of the data.

    Attributes:
        size: side of a crop, in pixels; a multiple of 8.
        photographs: share of pairs that are warped photographs.
        made_up: share of pairs that are warped pictures which are computed.
        num_made_up: how many of these there are.
        mixed: share of pairs that are warped mixtures of all of them, a new one for every pair.
        rendered: share of pairs of views of rendered rooms.
        num_rooms: how many rooms there are.
        num_views: of a room.
        model: a COLMAP model of the photographs, with points; empty for none.
        tracked: share of pairs of its photographs.
    """

    size: Annotated[int, Field(ge=32, multiple_of=8)] = 192
    photographs: NonNegativeFloat = 0.4
    made_up: NonNegativeFloat = 0.3
    num_made_up: PositiveInt = 30
    mixed: NonNegativeFloat = 0.0
    rendered: NonNegativeFloat = 0.3
    num_rooms: PositiveInt = 24
    num_views: Annotated[int, Field(ge=2)] = 10
    model: str = ""
    tracked: NonNegativeFloat = 0.3


def photographs_of(data: str) -> tuple[list[Image], list[str]]:
    """Return the photographs of a folder, or the free ones, and what to say of them.

    Raises:
        ImageError: there is no such folder, or a picture that cannot be read.
        ConfigError: the package of free ones is not installed.
    """
    if data == FREE:
        return free_photographs(), [f"{name}: {licence}" for name, licence in LICENCES.items()]
    pictures = read_pictures(Path(data))
    return pictures, [f"{len(pictures)} photographs of {data}"]


def divided(photographs: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """Return the photographs to train on and those to evaluate on; of a few, all for both."""
    held_out = [p for i, p in enumerate(photographs) if i % _HELD_OUT == _HELD_OUT - 1]
    seen = [p for i, p in enumerate(photographs) if i % _HELD_OUT != _HELD_OUT - 1]
    return seen or list(photographs), held_out or list(photographs)


def held_out_sources(
    photographs: Sequence[Image],
    config: DataConfig,
    seed: int,
    warps: Warps | None = None,
    rooms: Rooms | None = None,
) -> dict[str, Source]:
    """Return sources of pairs that no step sees, by their kind: warped, and rendered if any are.

    Args:
        photographs: that are kept back; they hang in the room, too.
        config: of the data.
        seed: of the training.
        warps: how far crops differ; the default if None.
        rooms: the room; one with a few views if None.
    """
    light = Light()
    found = {"warped": warping(photographs, warps or Warps(size=config.size), light)}
    if config.rendered:
        room = rooms or Rooms(num=1, views=6, size=config.size)
        found["rendered"] = rendering(photographs, room, light, seed + 1)
    return found


def sources_of(
    photographs: Sequence[Image],
    folder: str,
    config: DataConfig,
    seed: int,
    progress: Progress,
    light: Light | None = None,
    warps: Warps | None = None,
    rooms: Rooms | None = None,
) -> tuple[list[tuple[Source, float]], list[str]]:
    """Return sources of pairs with their shares, and what they are, a line each.

    Args:
        photographs: to be warped, and to hang in the rooms.
        folder: where they are, for `model`.
        config: which sources.
        seed: of what is made up and of the rooms.
        progress: shows the rendering.
        light: what changes between two pictures; the default if None.
        warps: how far two crops of one picture differ; the default if None.
        rooms: which rooms, and how far two views are apart; those of `config` if None.

    Raises:
        ConfigError: there is no pair at all.
        ModelError: the model cannot be used.
    """
    light = light or Light()
    warps = warps or Warps(size=config.size)
    found: list[tuple[Source, float]] = []
    said = []
    if config.photographs:
        found.append((warping(photographs, warps, light), config.photographs))
        said.append(f"{len(photographs)} of these, warped")
    computed = made_up(seed, photographs, config.num_made_up) if config.made_up else []
    if computed:
        found.append((warping(computed, warps, light), config.made_up))
        said.append(f"{len(computed)} pictures computed by this package, partly from them")
    pictures = [*photographs, *computed]
    if config.mixed:
        found.append((mixing(pictures, warps, light), config.mixed))
        said.append("mixtures of all of these, warped, another one for every pair")
    if config.rendered:
        rooms = rooms or Rooms(num=config.num_rooms, views=config.num_views, size=config.size)
        mixed = mixtures(seed, pictures, _NUM_ON_WALLS, 480) if config.mixed else []
        walls = [*photographs, *mixed]
        advance = progress("render", rooms.num)
        found.append((rendering(walls, rooms, light, seed, advance), config.rendered))
        said.append(f"{rooms.num * rooms.views} views of {rooms.num} rooms, with them on the walls")
    if config.model and config.tracked:
        tracked = Tracked(size=config.size)
        found.append((tracking(Path(config.model), Path(folder), tracked, light), config.tracked))
        said.append(f"the tracks of {config.model}")
    if not found:
        raise ConfigError(
            "all shares of the data are 0; set photographs, made_up, mixed or rendered"
        )
    return found, said

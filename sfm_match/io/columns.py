"""How each stored type is laid out in columns, and the way there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from sfm_match.types import Correspondences, Features, Matches, TwoView, TwoViewConfig

Item = TypeVar("Item")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Column:
    """One field of a stored type.

    Attributes:
        name: the field's name.
        ragged: one row for each element of the item (keypoint, match); else one row for each item.
        optional: the field may be None.
    """

    name: str
    ragged: bool = True
    optional: bool = False


@dataclass(frozen=True)
class Layout(Generic[Item]):
    """The columns of a stored type. All ragged columns of an item have the same length."""

    type: type[Item]
    columns: tuple[Column, ...]

    def from_arrays(self, arrays: Mapping[str, Array | None]) -> Item:
        """Build an item from its columns."""
        return self.type(**arrays)

    def num_rows(self, item: Item) -> int:
        """Return the length of the item's ragged columns."""
        first = next(column for column in self.columns if column.ragged)
        return len(getattr(item, first.name))


class _TwoViewLayout(Layout[TwoView]):
    def from_arrays(self, arrays: Mapping[str, Array | None]) -> TwoView:
        config = arrays["config"]
        assert config is not None
        return TwoView(**{**arrays, "config": TwoViewConfig(int(config))})  # type: ignore[arg-type]


LAYOUTS: Mapping[type, Layout[Any]] = {
    Features: Layout(
        Features,
        (
            Column("keypoints"),
            Column("scores"),
            Column("descriptors"),
            Column("image_size", ragged=False),
            Column("scales", optional=True),
            Column("orientations", optional=True),
        ),
    ),
    Matches: Layout(Matches, (Column("indices"), Column("scores"))),
    Correspondences: Layout(
        Correspondences, (Column("points0"), Column("points1"), Column("scores"))
    ),
    TwoView: _TwoViewLayout(
        TwoView,
        (
            Column("inliers"),
            Column("config", ragged=False),
            *(
                Column(name, ragged=False, optional=True)
                for name in ("cam1_from_cam0", "E", "F", "H")
            ),
        ),
    ),
}


@dataclass(frozen=True)
class Stacked:
    """A run of items as columns.

    Attributes:
        offsets: int64 (n + 1,), where each item's rows begin in the ragged columns.
        values: the columns: ragged ones (rows, ...), the others (n, ...); a column that no item
            has is left out.
        present: bool (n,) for each optional column: which items have it.
    """

    offsets: npt.NDArray[np.int64]
    values: Mapping[str, Array]
    present: Mapping[str, npt.NDArray[np.bool_]]


def stack(layout: Layout[Item], items: Sequence[Item]) -> Stacked:
    """Lay items out in columns.

    Raises:
        ValueError: two items differ in the width or type of a column, so that it cannot be one
            array (for example descriptors of different lengths).
    """
    lengths = [layout.num_rows(item) for item in items]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values: dict[str, Array] = {}
    present: dict[str, npt.NDArray[np.bool_]] = {}
    for column in layout.columns:
        fields = [getattr(item, column.name) for item in items]
        if column.optional:
            present[column.name] = np.array([field is not None for field in fields])
            if not present[column.name].any():
                continue
        values[column.name] = _join(column, fields, lengths)
    return Stacked(offsets, values, present)


def _join(column: Column, fields: Sequence[Any], lengths: Sequence[int]) -> Array:
    arrays = [np.asarray(field) for field in fields if field is not None]
    trailing = arrays[0].shape[1:] if column.ragged else arrays[0].shape
    for array in arrays:
        if (array.shape[1:] if column.ragged else array.shape) != trailing:
            raise ValueError(
                f"{column.name} is {array.shape} in one item and {arrays[0].shape} in another: "
                "the items of a store have columns of one width"
            )
        if array.dtype != arrays[0].dtype:
            raise ValueError(
                f"{column.name} is {array.dtype} in one item and {arrays[0].dtype} in another"
            )
    absent = np.zeros(trailing, arrays[0].dtype)
    if column.ragged:
        rows = [
            np.broadcast_to(absent, (n, *trailing)) if field is None else field
            for field, n in zip(fields, lengths, strict=True)
        ]
        return np.concatenate(rows)
    return np.stack([absent if field is None else np.asarray(field) for field in fields])


def split(layout: Layout[Item], stacked: Stacked, num: int) -> list[dict[str, Array | None]]:
    """Return the columns of each of a run of items; a column that was not read is left out.

    Each array is a copy, so that keeping one item does not keep the whole run in memory.
    """
    rows = [
        slice(int(a), int(b))
        for a, b in zip(stacked.offsets[:-1], stacked.offsets[1:], strict=True)
    ]
    arrays: list[dict[str, Array | None]] = [{} for _ in range(num)]
    for column in layout.columns:
        values = stacked.values.get(column.name)
        present = stacked.present.get(column.name)
        for i in range(num):
            if present is not None and not present[i]:
                arrays[i][column.name] = None
            elif values is not None:
                part = values[rows[i]] if column.ragged else values[i]
                arrays[i][column.name] = np.array(part)
    return arrays

"""What the readers of data sets give: images, and what is true of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.benchmarks.resizing import Size
from sfm_match.geometry.point_clouds import Scan
from sfm_match.spec import ConfigError, nearest
from sfm_match.stages.pair_truth import PairTruth
from sfm_match.types import ArrayF64

_NUM_NAMES_SHOWN = 3


@dataclass(frozen=True)
class PosePairs:
    """Image pairs with true relative poses.

    Attributes:
        truth: the pairs.
        groups: the part of the data set that each pair is of.
        frame: width and height of the raster that the cameras are for; None for the file's.
    """

    truth: PairTruth
    groups: tuple[str, ...]
    frame: Size | None = None


@dataclass(frozen=True)
class Scene:
    """Images of one place with their true model.

    Attributes:
        name: the scene's.
        model: the truth; names of images are relative to the data set's root.
        subsets: names of images, by the subset's name; of a data set that has subsets.
        scans: reads the laser scans, of a data set that has some.
    """

    name: str
    model: pycolmap.Reconstruction
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scans: Callable[[], list[Scan]] | None = None

    @property
    def names(self) -> list[str]:
        """The images with a pose, sorted."""
        return sorted(self.model.image(i).name for i in self.model.reg_image_ids())


@dataclass(frozen=True)
class PoseSet:
    """A data set with true poses.

    Attributes:
        root: the folder that names of images are relative to.
        pairs: its pairs.
        scenes: its scenes; none of a data set that only lists pairs.
    """

    root: Path
    pairs: PosePairs
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class HomographyPair:
    """Two images and the homography between them.

    Attributes:
        names: relative to the data set's root.
        H: float64 (3, 3), takes corner-origin pixels of the first file to the second.
        group: illumination or viewpoint.
    """

    names: tuple[str, str]
    H: ArrayF64
    group: str


@dataclass(frozen=True)
class HomographySet:
    """A data set with true homographies.

    Attributes:
        root: the folder that names of images are relative to.
        pairs: its pairs.
        left_out: sequences that are there and were not taken.
    """

    root: Path
    pairs: tuple[HomographyPair, ...]
    left_out: tuple[str, ...] = ()


def choose_scenes(there: Iterable[str], wanted: Collection[str], root: Path) -> list[str]:
    """Return the scenes of a data set, sorted: those wanted, or all.

    Raises:
        ConfigError: one is not there, or there is none at all.
    """
    known = sorted(there)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{root}: no scene {name!r}; {nearest(name, known)}")
    chosen = sorted(wanted) if wanted else known
    if not chosen:
        raise ConfigError(
            f"{root}: holds no scene in this benchmark's layout; see its layout in "
            "datasets/README.md"
        )
    return chosen


def check_images(root: Path, names: Iterable[str]) -> None:
    """Raise ConfigError where images are missing, so that a result is one of the whole set."""
    wanted = sorted(set(names))
    missing = [name for name in wanted if not (root / name).is_file()]
    if missing:
        rest = len(missing) - _NUM_NAMES_SHOWN
        shown = ", ".join(missing[:_NUM_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        raise ConfigError(
            f"{root}: {len(missing)} of the benchmark's {len(wanted)} images are not there: {shown}"
        )


def make_model(
    cameras: Mapping[str, pycolmap.Camera], cam_from_world: Mapping[str, ArrayF64]
) -> pycolmap.Reconstruction:
    """Return a model without points: of each image its own camera and its pose (3, 4)."""
    model = pycolmap.Reconstruction()
    for number, name in enumerate(sorted(cameras), start=1):
        camera = pycolmap.Camera(cameras[name].todict() | {"camera_id": number})
        model.add_camera_with_trivial_rig(camera)
        pose = np.asarray(cam_from_world[name], np.float64)
        image = pycolmap.Image(name=name, camera_id=number, image_id=number)
        model.add_image_with_trivial_frame(
            image, pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:, :3]), pose[:, 3])
        )
    return model


def pinhole(K: ArrayF64, size: Size = (0, 0)) -> pycolmap.Camera:
    """Return the camera of a calibration matrix without skew, in corner-origin pixels.

    Args:
        K: float64 (3, 3).
        size: of the image; 0 where it is not known.

    Raises:
        ConfigError: K has a skew or a focal length that is not positive.
    """
    if K[0, 1] != 0 or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise ConfigError(f"K must have positive focal lengths and no skew, got {K.tolist()}")
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    return pycolmap.Camera(model="PINHOLE", width=size[0], height=size[1], params=params)


def shared_points(model: pycolmap.Reconstruction, names: Sequence[str]) -> ArrayF64:
    """Return how many points of a model each two of the images see, (N, N)."""
    from scipy.sparse import csr_array

    row_of = {model.find_image_with_name(name).image_id: i for i, name in enumerate(names)}
    seen = [
        (row_of[element.image_id], column)
        for column, point in enumerate(model.points3D.values())
        for element in point.track.elements
        if element.image_id in row_of
    ]
    rows, columns = np.array(seen, np.int64).reshape(-1, 2).T
    shape = len(names), max(model.num_points3D(), 1)
    incidence = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    incidence.data[:] = 1  # an image that sees a point twice sees it
    return np.asarray((incidence @ incidence.T).todense())


def chosen_pairs(scene: Scene, min_shared_points: int) -> list[tuple[str, str]]:
    """Return the pairs of a scene's images that see enough points of its model together.

    Raises:
        ConfigError: no pair does.
    """
    names = scene.names
    rows, columns = np.triu_indices(len(names), k=1)
    if min_shared_points:
        shared = shared_points(scene.model, names)
        enough = shared[rows, columns] >= min_shared_points
        rows, columns = rows[enough], columns[enough]
        if len(rows) == 0:
            raise ConfigError(
                f"{scene.name}: no two images see {min_shared_points} points of the true model "
                f"together (it has {scene.model.num_points3D()}); set min_shared_points = 0"
            )
    return [(names[i], names[j]) for i, j in zip(rows, columns, strict=True)]

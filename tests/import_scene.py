"""A scene in the stores of a run, and COLMAP databases of its images that somebody else made."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.import_into import ConflictError, ImportReport, import_into
from sfm_match.stages.match import match_digest
from sfm_match.stages.verify import verify, verify_digest, verify_spec
from sfm_match.types import Features, Matches, Pair, TwoView
from tests.colmap_scene import MATCHER, Scene, camera
from tests.scenes import database_rows

SPEC = verify_spec({}, MATCHER, seed=0)
NOTHING = ImportReport(found=6, missing=[])
ALL = ImportReport(found=6, missing=[], keypoints=6, matched_pairs=15, verified_pairs=15)
TABLES_OF_IMAGES = ("cameras", "rigs", "rig_sensors", "frames", "frame_data", "images")

SCHEMA_OF_COLMAP_3_8 = """
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, params BLOB,
  prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE,
  camera_id INTEGER NOT NULL, prior_qw REAL, prior_qx REAL, prior_qy REAL, prior_qz REAL,
  prior_tx REAL, prior_ty REAL, prior_tz REAL,
  CONSTRAINT image_id_check CHECK(image_id >= 0 and image_id < 2147483647),
  FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE UNIQUE INDEX index_name ON images(name);
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB,
  FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB,
  FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB);
CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL,
  cols INTEGER NOT NULL, data BLOB, config INTEGER NOT NULL, F BLOB, E BLOB, H BLOB);
"""


@dataclass(frozen=True)
class Made:
    """A scene and the stores of a run on it."""

    scene: Scene
    features: Store[Features]
    matches: Store[Matches]
    two_views: Store[TwoView]

    @property
    def pairs(self) -> list[Pair]:
        return list(self.scene.matches)

    def import_into(self, path: Path, **options: Any) -> ImportReport:
        """Import everything."""
        return import_into(
            path,
            self.scene.digests,
            self.pairs,
            self.scene.cameras,
            SPEC,
            self.features,
            self.matches,
            self.two_views,
            workers=1,
            **options,
        )

    def with_matches(self, folder: Path, change: Callable[[Pair, Matches], Matches]) -> Made:
        """Return a run with the same features and other matches."""
        changed = {pair: change(pair, found) for pair, found in self.scene.matches.items()}
        return store_scene(replace(self.scene, matches=changed), folder)

    def verified(self, cameras: Cameras) -> dict[Pair, TwoView]:
        """Return the geometries in the store that these cameras gave."""
        return {
            pair: self.two_views.read(pair, verify_digest(pair, self.scene.digests, cameras))
            for pair in self.pairs
        }


def store_scene(scene: Scene, folder: Path) -> Made:
    """Write the stores of a scene below a folder, its pairs verified."""
    made = open_stores(scene, folder)
    with made.features.writer() as writer:
        for name, digest in scene.digests.items():
            writer.add(name, digest, scene.features(name))
    with made.matches.writer() as pair_writer:
        for pair, found in scene.matches.items():
            pair_writer.add(pair, match_digest(pair, scene.digests), found)
    verify(
        made.pairs,
        scene.digests,
        scene.cameras,
        SPEC,
        made.features,
        made.matches,
        made.two_views,
        workers=1,
    )
    return made


def open_stores(scene: Scene, folder: Path) -> Made:
    """Open the stores that `store_scene` wrote."""
    return Made(
        scene,
        Store.create(folder, Features, Spec("extractors", "synthetic", 1, {})),
        Store.create(folder, Matches, MATCHER),
        Store.create(folder, TwoView, SPEC),
    )


def make_database(
    path: Path,
    names: Sequence[str],
    *,
    cameras: Mapping[str, int] | None = None,
    made: pycolmap.Camera | None = None,
    frames: bool = True,
) -> None:
    """Write a database of images without features, as COLMAP's import of images does.

    Args:
        path: the database.
        names: the images; their ids fall from 40 on, so that pairs are turned round.
        cameras: the camera of each image, 5 by default.
        made: what all the cameras are like.
        frames: whether there are rigs and frames.
    """
    of_image = cameras or dict.fromkeys(names, 5)
    with pycolmap.Database.open(path) as database:
        for camera_id in sorted(set(of_image.values())):
            one = made or camera()
            one.camera_id = camera_id
            database.write_camera(one, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=camera_id + 100)
            rig.add_ref_sensor(one.sensor_id)
            if frames:
                database.write_rig(rig, use_rig_id=True)
        for number, name in enumerate(names):
            image = pycolmap.Image(name=name, camera_id=of_image[name], image_id=40 - number)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(rig_id=of_image[name] + 100)
            frame.add_data_id(image.data_id)
            if frames:
                database.write_frame(frame)


def make_old_database(path: Path, names: Sequence[str]) -> None:
    """Write a database of images without features, as COLMAP 3.8 would."""
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_OF_COLMAP_3_8)
    made = camera()
    params = np.asarray(made.params, np.float64).tobytes()
    with connection:
        connection.execute(
            "INSERT INTO cameras VALUES (5, ?, ?, ?, ?, 1)",
            (int(made.model), made.width, made.height, params),
        )
        for number, name in enumerate(names):
            connection.execute(
                "INSERT INTO images (image_id, name, camera_id) VALUES (?, ?, 5)",
                (40 - number, name),
            )
    connection.close()


def reconstruct(path: Path, out: Path) -> pycolmap.Reconstruction:
    """Let COLMAP map a database; return its one model."""
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, extract_colors=False)
    (model,) = pycolmap.incremental_mapping(path, path.parent, out, options).values()
    return model


def rows_of_images(path: Path) -> dict[str, list[str]]:
    """Return the rows of the tables that describe images."""
    rows = database_rows(path)
    return {table: rows[table] for table in TABLES_OF_IMAGES}


def image_of(database: pycolmap.Database, name: str) -> pycolmap.Image:
    found = database.read_image_with_name(name)
    assert found is not None, name
    return found


def conflicts(made: Made, path: Path, *, add_images: bool = False) -> tuple[str, ...]:
    """Return why a database is left as it is, which it is to the last byte."""
    before = path.read_bytes()
    with pytest.raises(ConflictError) as caught:
        made.import_into(path, add_images=add_images)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.glob("user.db*")] == ["user.db"]
    message = str(caught.value)
    assert message.startswith(f"{path}: nothing was changed")
    assert [line.strip() for line in message.splitlines()[1:]] == list(caught.value.conflicts)
    return caught.value.conflicts

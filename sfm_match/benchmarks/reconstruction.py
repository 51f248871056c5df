"""Models of some images of a scene, from what was matched once for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from sfm_match.benchmarks.datasets import make_model
from sfm_match.benchmarks.matched import Machine, Matched
from sfm_match.geometry.cameras import Cameras, ImageInfo, assign_cameras
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.database import build_database
from sfm_match.stages.evaluate import poses_by_name
from sfm_match.stages.mappers import mapper_spec
from sfm_match.stages.mapping import MapReport, map_images
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.scan import Source
from sfm_match.stages.tracks import make_tracks, read_track_digests, tracks_digest
from sfm_match.stages.verify import verify
from sfm_match.types import Features, Matches, Pair, TwoView


@dataclass(frozen=True)
class Workbench:
    """What models are made of.

    Attributes:
        folder: where stores and models are kept.
        root: the folder of images.
        matched: what was found in the images.
        recipe: the settings of tracks, verification and mapper.
        machine: what does the work.
    """

    folder: Path
    root: Path
    matched: Matched
    recipe: Recipe
    machine: Machine

    def two_views(self) -> Store[TwoView]:
        """Open the store of two-view geometries."""
        return Store.create(self.folder / "two_views", TwoView, self.recipe.verify)


def true_cameras(model: pycolmap.Reconstruction, bench: Workbench, names: Sequence[str]) -> Cameras:
    """Return the cameras of a true model in the size in which images are shown, held fixed."""
    cameras, of_image = {}, {}
    for number, name in enumerate(sorted(names), start=1):
        image = model.find_image_with_name(name)
        camera = pycolmap.Camera(model.cameras[image.camera_id].todict() | {"camera_id": number})
        camera.rescale(*bench.matched.shown.size(name))
        camera.has_prior_focal_length = True
        cameras[number], of_image[name] = camera, number
    return Cameras(cameras, of_image, fixed=True)


def unknown_cameras(bench: Workbench, names: Sequence[str]) -> Cameras:
    """Return the cameras that the recipe's table `[camera]` gives to images of unknown origin."""
    sources = bench.matched.shown.sources.images
    infos = [
        ImageInfo(name, *bench.matched.shown.size(name), _focal(sources[name]), None)
        for name in names
    ]
    return assign_cameras(infos, bench.recipe.camera)


def _focal(source: Source) -> float | None:
    return source.camera.focal if source.resize is None else None


def posed_model(
    model: pycolmap.Reconstruction, cameras: Cameras, names: Sequence[str]
) -> pycolmap.Reconstruction:
    """Return the true poses of some images with these cameras, without points."""
    poses = poses_by_name(model, Path())
    return make_model(
        {name: cameras[name] for name in names}, {name: poses[name] for name in names}
    )


def reconstruct(
    bench: Workbench,
    folder: Path,
    pairs: Sequence[Pair],
    cameras: Cameras,
    mapper: str,
    options: Mapping[str, Any],
) -> MapReport:
    """Verify pairs and make models of their images, unless those are there.

    Args:
        bench: what they are made of.
        folder: takes `database.db`, `models/` and `model/`, the one with the most images.
        pairs: of images with cameras; those of images that could not be used are left out.
        cameras: of the images of the model.
        mapper: its name.
        options: of the mapper, where they differ from pycolmap's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stores, recipe, machine = bench.matched.stores, bench.recipe, bench.machine
    usable = [pair for pair in pairs if pair.a in stores.digests and pair.b in stores.digests]
    named = sorted({name for pair in usable for name in (pair.a, pair.b)})
    digests = {name: stores.digests[name] for name in named}
    if not usable:
        return MapReport(reason="no image can be used")
    features, matches, digests = _features_and_matches(bench, usable, digests)
    two_views = bench.two_views()
    try:
        verify(
            usable,
            digests,
            cameras,
            recipe.verify,
            features,
            matches,
            two_views,
            workers=machine.threads,
        )
        build_database(
            folder / "database.db",
            digests,
            usable,
            cameras,
            recipe.verify,
            features,
            matches,
            two_views,
        )
    finally:
        two_views.close()
    spec: Spec = mapper_spec(mapper, options, recipe.seed, cameras.fixed)
    return map_images(folder, bench.root, cameras, spec, dict(options), threads=machine.threads)


def _features_and_matches(
    bench: Workbench, pairs: Sequence[Pair], digests: dict[str, bytes]
) -> tuple[Store[Features], Store[Matches], dict[str, bytes]]:
    """Return what the database is made of; correspondences become tracks of these images."""
    stores, spec = bench.matched.stores, bench.recipe.tracks
    found: Store[Any] = stores.matches
    if spec is None:
        assert stores.features is not None
        return stores.features, found, digests
    features = Store.create(bench.folder / "features", Features, spec)
    matches = Store.create(bench.folder / "matches", Matches, spec)
    sources = bench.matched.shown.sources.images
    make_tracks(pairs, digests, sources, spec, found, stores.anchors, features, matches)
    made = read_track_digests(features, tracks_digest(digests, pairs))
    assert made is not None  # just written
    return features, matches, made

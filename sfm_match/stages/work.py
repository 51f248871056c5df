"""What each stage has to do on an output folder, from its stores and the settings of its recipe.

Each function returns what does the work when it is called with the argument `progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sfm_match.io.database import read_info
from sfm_match.spec import ConfigError
from sfm_match.stages.adjust import free_after
from sfm_match.stages.database import DatabaseReport, build_database, database_fingerprint
from sfm_match.stages.extract import ExtractReport, extract
from sfm_match.stages.import_into import ImportReport, import_into
from sfm_match.stages.mapping import MapReport, map_images, models_fingerprint
from sfm_match.stages.match import match
from sfm_match.stages.pairwise import PairsReport
from sfm_match.stages.polish import PolishReport, polish_models
from sfm_match.stages.refine import RefineReport, refine
from sfm_match.stages.scan import Source
from sfm_match.stages.tracks import TracksReport, make_tracks
from sfm_match.stages.verify import VerifyReport, verify
from sfm_match.stages.workspace import Workspace
from sfm_match.types import Pair


def extracting(
    space: Workspace, sources: Sequence[Source], device: str, threads: int
) -> Callable[..., ExtractReport]:
    """Extract the features of images; the recipe must name an extractor."""
    spec, store = space.recipe.features, space.extracted
    assert spec is not None
    assert store is not None
    return partial(extract, sources, spec, store, device=device, workers=threads)


def matching(
    space: Workspace, pairs: Sequence[Pair], device: str, threads: int
) -> Callable[..., PairsReport]:
    """Match pairs."""
    return partial(
        match,
        pairs,
        space.image_digests(),
        space.recipe.matcher,
        space.extracted,
        space.matches if space.correspondences is None else space.correspondences,
        sources=space.sources.images,
        device=device,
        workers=threads,
    )


def refining(
    space: Workspace, pairs: Sequence[Pair], device: str, threads: int
) -> Callable[..., RefineReport]:
    """Refine the correspondences of pairs; the recipe must name a refiner."""
    spec, found, refined = space.recipe.refiner, space.correspondences, space.refined
    assert spec is not None
    assert found is not None
    assert refined is not None
    return partial(
        refine,
        pairs,
        space.image_digests(),
        spec,
        space.extracted,
        found,
        refined,
        sources=space.sources.images,
        device=device,
        workers=threads,
    )


def tracking(
    space: Workspace, pairs: Sequence[Pair], digests: dict[str, bytes]
) -> Callable[..., TracksReport]:
    """Make tracks from correspondences; the recipe must have such a matcher."""
    spec, found = space.recipe.tracks, space.refined
    assert spec is not None
    assert found is not None
    return partial(
        make_tracks,
        pairs,
        digests,
        space.sources.images,
        spec,
        found,
        space.extracted,
        space.features,
        space.matches,
    )


def verifying(space: Workspace, pairs: Sequence[Pair], threads: int) -> Callable[..., VerifyReport]:
    """Verify the matches of pairs."""
    return partial(
        verify,
        pairs,
        space.digests(),
        space.cameras,
        space.recipe.verify,
        space.features,
        space.matches,
        space.two_views,
        workers=threads,
    )


def importing(space: Workspace, pairs: Sequence[Pair]) -> Callable[..., DatabaseReport]:
    """Write the database of an output folder from verified pairs."""
    return partial(
        build_database,
        space.out / "database.db",
        space.digests(),
        pairs,
        space.cameras,
        space.recipe.verify,
        space.features,
        space.matches,
        space.two_views,
    )


def importing_into(
    space: Workspace, path: Path, pairs: Sequence[Pair], add_images: bool, threads: int
) -> Callable[..., ImportReport]:
    """Add the images and pairs to a database that was made elsewhere.

    Raises:
        ConfigError: it is the `database.db` of this folder.
    """
    own = space.out / "database.db"
    if path.exists() and own.exists() and path.samefile(own):
        raise ConfigError(f"{path}: is replaced as a whole; import without naming it")
    return partial(
        import_into,
        path,
        space.digests(),
        pairs,
        space.cameras,
        space.recipe.verify,
        space.features,
        space.matches,
        space.two_views,
        add_images=add_images,
        workers=threads,
    )


def mapping(space: Workspace, pairs: Sequence[Pair], threads: int) -> Callable[..., MapReport]:
    """Reconstruct from the database of an output folder.

    Raises:
        ConfigError: the database was made with other settings or from other images or pairs.
    """
    _check_database(space, pairs)
    recipe = space.recipe
    return partial(
        map_images,
        space.out,
        space.images,
        space.cameras,
        recipe.mapper,
        recipe.mapper_options,
        polished=recipe.polish is not None,
        threads=threads,
    )


def polishing(
    space: Workspace, pairs: Sequence[Pair], device: str, threads: int
) -> Callable[..., PolishReport]:
    """Go over the models of an output folder again; the recipe must say so.

    Raises:
        ConfigError: the database was made with other settings or from other images or pairs.
    """
    _check_database(space, pairs)
    recipe = space.recipe
    assert recipe.polish is not None
    return partial(
        polish_models,
        space.out,
        models_fingerprint(space.out, recipe.mapper, recipe.mapper_options),
        space.sources.images,
        recipe.polish,
        free_after(recipe.mapper, recipe.mapper_options),
        device=device,
        threads=threads,
    )


def _check_database(space: Workspace, pairs: Sequence[Pair]) -> None:
    database = space.out / "database.db"
    made_from = database_fingerprint(space.digests(), pairs, space.cameras, space.recipe.verify)
    if read_info(database).get("fingerprint") != made_from:
        raise ConfigError(f"{database}: not made of these settings and images; import first")

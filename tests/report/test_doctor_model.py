"""Models and output folders broken on purpose, each with the one finding that it should give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.database_access import DatabaseError
from sfm_match.io.store import Store, shard_files
from sfm_match.report.doctor import CODES, examine, examine_folder
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Severity
from sfm_match.spec import Spec
from sfm_match.types import Matches, Pair
from tests.colmap_scene import Scene, same_rows, synthesize
from tests.databases import edit, pair_id
from tests.report.broken import the_only, without_pairs

Model = pycolmap.Reconstruction


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthesize(8, noise=0.3)


@pytest.fixture
def out(scene: Scene, tmp_path: Path) -> Path:
    """A folder as COLMAP leaves it."""
    scene.write_database(tmp_path / "database.db")
    return tmp_path


def model_of(scene: Scene) -> Model:
    """Return a model that may be changed, with the keypoints of the scene's database."""
    return Model(scene.truth)


def unregister(model: Model, name: str) -> None:
    image = model.find_image_with_name(name)
    assert image is not None
    model.deregister_frame(image.frame_id)


def test_a_sound_model_has_no_finding(out: Path, scene: Scene) -> None:
    assert examine(out / "database.db", model_of(scene)) == []


def test_an_image_that_is_not_registered_and_its_matches_with_the_model(
    out: Path, scene: Scene
) -> None:
    model = model_of(scene)
    unregister(model, scene.names[2])
    finding = the_only(examine(out / "database.db", model))
    assert (finding.code, finding.severity) == ("unregistered-images", Severity.WARNING)
    # Every point is seen in every image, and all matches are correct.
    assert [str(place) for place in finding.where] == [f"{scene.names[2]} (200 2D-3D matches)"]


def test_matches_with_the_model_are_counted_once_for_a_keypoint(out: Path, scene: Scene) -> None:
    """Without the pairs but one, and without half of the points, exactly those of that pair."""
    model = model_of(scene)
    unregister(model, scene.names[2])
    with_few = [i for n, i in enumerate(model.points3D) if n % 4]
    for point in with_few:
        model.delete_point3D(point)
    edit(
        out / "database.db",
        without_pairs(lambda a, b: 3 not in (a, b) or (a, b) in [(3, 4), (1, 3)]),
    )
    finding = next(
        f for f in examine(out / "database.db", model) if f.code == "unregistered-images"
    )
    assert finding.where[0].detail == "50 2D-3D matches"


def test_most_images_are_missing(out: Path, scene: Scene) -> None:
    model = model_of(scene)
    for name in scene.names[:5]:
        unregister(model, name)
    finding = the_only(examine(out / "database.db", model))
    assert (finding.code, finding.severity) == ("unregistered-images", Severity.PROBLEM)


def test_a_model_of_another_database(out: Path) -> None:
    finding = the_only(examine(out / "database.db", synthesize(8, num_points=100).truth))
    assert (finding.code, finding.severity) == ("model-of-other-database", Severity.WARNING)


def set_focal(model: Model, focal: float) -> None:
    for camera in model.cameras.values():
        camera.focal_length = focal


def set_errors(model: Model, error: float) -> None:
    for point in model.points3D.values():
        point.error = error


def shorten_tracks(model: Model) -> None:
    for point in list(model.points3D.values()):
        seen = [(element.image_id, element.point2D_idx) for element in point.track.elements]
        for image_id, row in seen[2:]:
            model.delete_observation(image_id, row)


@pytest.mark.parametrize(
    ("change", "prior", "code"),
    [
        (lambda model: set_focal(model, 800.0), True, "focal-prior"),
        (lambda model: set_focal(model, 1600.0), False, "focal-drift"),
        (lambda model: set_errors(model, 3.0), True, "reprojection-error"),
        (shorten_tracks, True, "short-tracks"),
    ],
)
def test_a_bad_model(
    out: Path, scene: Scene, change: Callable[[Model], None], prior: bool, code: str
) -> None:
    edit(out / "database.db", f"UPDATE cameras SET prior_focal_length = {int(prior)}")
    model = model_of(scene)
    change(model)
    finding = the_only(examine(out / "database.db", model))
    assert (finding.code, finding.severity) == (code, Severity.WARNING)


def test_thresholds_can_be_changed(out: Path, scene: Scene) -> None:
    model = model_of(scene)
    set_errors(model, 3.0)
    assert examine(out / "database.db", model, limits=Thresholds(max_reprojection_error=4.0)) == []


# Output folders.


def finding_of(out: Path) -> Finding:
    return the_only(examine_folder(out).findings)


def write_model(scene: Scene, folder: Path) -> None:
    folder.mkdir(parents=True)
    model_of(scene).write(folder)


@pytest.mark.parametrize("place", ["model", "sparse/0", "0", "."])
def test_the_model_is_found_where_each_tool_puts_it(out: Path, scene: Scene, place: str) -> None:
    folder = out / place
    folder.mkdir(parents=True, exist_ok=True)
    model = model_of(scene)
    unregister(model, scene.names[0])
    model.write(folder)
    assert finding_of(out).code == "unregistered-images"


def test_a_sound_folder_has_no_finding(out: Path, scene: Scene) -> None:
    write_model(scene, out / "model")
    assert examine_folder(out).findings == []


def test_a_folder_without_a_model(out: Path) -> None:
    assert (finding_of(out).code, finding_of(out).severity) == ("no-model", Severity.NOTE)


def test_a_run_that_ended_without_a_model(out: Path) -> None:
    content = {"stages": {"map": {"reason": "nothing links the images"}}}
    (out / "results.json").write_text(json.dumps(content))
    finding = finding_of(out)
    assert (finding.code, finding.severity) == ("no-model", Severity.PROBLEM)
    assert "nothing links the images" in finding.what


@pytest.mark.parametrize("second", ["models/1", "sparse/1", "1"])
def test_several_models(out: Path, scene: Scene, second: str) -> None:
    write_model(scene, out / "model")
    write_model(scene, out / second)
    assert (finding_of(out).code, finding_of(out).severity) == ("several-models", Severity.WARNING)


@pytest.mark.parametrize(
    ("results", "code", "severity"),
    [
        ({"failures": {"b.jpg": "the file is empty"}}, "left-out-images", Severity.WARNING),
        ({"remarks": {"b.jpg": "is the same file as a.jpg"}}, "same-images", Severity.NOTE),
    ],
)
def test_what_the_run_said(
    out: Path, scene: Scene, results: dict[str, object], code: str, severity: Severity
) -> None:
    write_model(scene, out / "model")
    (out / "results.json").write_text(json.dumps(results))
    finding = finding_of(out)
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.where[0].images == ("b.jpg",)


def test_a_damaged_store(out: Path, scene: Scene) -> None:
    write_model(scene, out / "model")
    store = Store.create(out / "matches", Matches, Spec("matchers", "nearest", 1, {}))
    with store.writer() as writer:
        writer.add(Pair("a", "b"), bytes(32), same_rows(5))
    store.close()
    shard = shard_files(store.folder)[0]
    shard.write_bytes(shard.read_bytes()[:-200])
    finding = finding_of(out)
    assert (finding.code, finding.severity) == ("damaged-stores", Severity.PROBLEM)
    assert shard.name in finding.what


def test_a_folder_without_a_database_says_how_far_the_run_came(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"stages": {"extract": {}, "pairs": {}}}))
    with pytest.raises(
        DatabaseError, match=r"no database.db; stages that were run: extract, pairs"
    ):
        examine_folder(tmp_path)


def test_counts(out: Path, scene: Scene) -> None:
    edit(out / "database.db", f"DELETE FROM two_view_geometries WHERE pair_id = {pair_id(1, 2)}")
    counts = examine_folder(out).counts
    assert counts == {
        "images": 8,
        "cameras": 1,
        "keypoints": 8 * 210,
        "matched_pairs": 28,
        "matches": 28 * 200,
        "verified_pairs": 27,
        "inliers": 27 * 200,
        "inliers_per_pair": [200.0] * 5,
    }


def test_every_code_is_explained_once() -> None:
    assert len(CODES) == len(set(CODES.values()))
    assert np.all([code == code.lower() and " " not in code for code in CODES])

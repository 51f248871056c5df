from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.cameras import Cameras
from sfm_match.spec import ConfigError
from sfm_match.stages.mappers import MAPPERS, checked_options, mapper_spec
from sfm_match.stages.mapping import MapReport, map_images
from tests.colmap_scene import Scene, camera, synthesize

RECONSTRUCTING = ("incremental", "global", "hierarchical")
WRONG_FOCAL = 630.0


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthesize(8, num_points=150, noise=0.3)


@pytest.fixture
def truth(scene: Scene, tmp_path: Path) -> Path:
    (tmp_path / "truth").mkdir()
    scene.truth.write(tmp_path / "truth")
    return tmp_path / "truth"


def run(out: Path, scene: Scene, name: str, options: Mapping[str, Any] | None = None) -> MapReport:
    if not (out / "database.db").exists():
        scene.write_database(out / "database.db")
    options = {**(options or {})}
    spec = mapper_spec(name, options, 0, scene.cameras.fixed)
    return map_images(out, out, scene.cameras, spec, options, threads=1)


def with_camera(scene: Scene, *, focal: float, prior: bool = True, fixed: bool = False) -> Scene:
    cameras = Cameras({1: camera(focal=focal, prior=prior)}, scene.cameras.of_image, fixed)
    return replace(scene, cameras=cameras)


def model_focal(out: Path) -> float:
    (found,) = pycolmap.Reconstruction(out / "model").cameras.values()
    return float(found.params[0])


def max_position_error(model: Path, truth: pycolmap.Reconstruction) -> float:
    found = pycolmap.compare_reconstructions(
        pycolmap.Reconstruction(model), truth, alignment_error="proj_center"
    )
    assert found is not None
    return max(float(error.proj_center_error) for error in found["errors"])


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_every_mapper_registers_all_images(scene: Scene, tmp_path: Path, name: str) -> None:
    report = run(tmp_path, scene, name)
    assert (len(report.models), report.reused, report.reason) == (1, False, None)
    summary = report.models[0]
    assert summary.images == 8
    assert summary.points > 140
    assert summary.track_length > 7.5
    assert 0.1 < summary.reprojection_error < 0.6
    # The cameras are some 5 from the centre.
    assert max_position_error(tmp_path / "model", scene.truth) < 0.05
    names = {image.name for image in pycolmap.Reconstruction(tmp_path / "model").images.values()}
    assert names == set(scene.names)


def test_triangulation_keeps_the_given_poses(scene: Scene, tmp_path: Path, truth: Path) -> None:
    report = run(tmp_path, scene, "triangulation", {"poses": str(truth)})
    assert report.models[0].images == 8
    assert report.models[0].points > 140
    model = pycolmap.Reconstruction(tmp_path / "model")
    for image in model.images.values():
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), scene.pose(image.name), atol=1e-12
        )


def test_triangulation_takes_the_intrinsics_of_the_given_model(
    scene: Scene, tmp_path: Path, truth: Path
) -> None:
    wrong = with_camera(scene, focal=WRONG_FOCAL)
    wrong.write_database(tmp_path / "database.db")
    report = run(tmp_path, wrong, "triangulation", {"poses": str(truth)})
    assert model_focal(tmp_path) == 600
    assert report.models[0].points > 140
    assert report.models[0].reprojection_error < 0.6
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        assert database.read_camera(1).mean_focal_length() == WRONG_FOCAL


def test_triangulation_leaves_out_images_without_a_pose(
    scene: Scene, tmp_path: Path, truth: Path
) -> None:
    part = pycolmap.Reconstruction(truth)
    for name in scene.names[:2]:
        image = part.find_image_with_name(name)
        part.deregister_frame(image.frame_id)
    part.write(truth)
    report = run(tmp_path, scene, "triangulation", {"poses": str(truth)})
    assert report.models[0].images == 6


@pytest.mark.parametrize("name", ["incremental", "triangulation"])
def test_one_thread_and_a_seed_fix_the_model(
    scene: Scene, tmp_path: Path, truth: Path, name: str
) -> None:
    options = {"poses": str(truth)} if name == "triangulation" else {}
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        run(folder, scene, name, options)
        contents.append((folder / "model" / "images.bin").read_bytes())
    assert contents[0] == contents[1]


def test_a_model_is_reused_until_its_settings_change(scene: Scene, tmp_path: Path) -> None:
    first = run(tmp_path, scene, "incremental")
    again = run(tmp_path, scene, "incremental")
    assert (again.reused, again.models) == (True, first.models)
    assert not run(tmp_path, scene, "incremental", {"min_num_matches": 10}).reused


def test_another_model_of_poses_is_triangulated_again(
    scene: Scene, tmp_path: Path, truth: Path
) -> None:
    options = {"poses": str(truth)}
    run(tmp_path, scene, "triangulation", options)
    assert run(tmp_path, scene, "triangulation", options).reused
    moved = pycolmap.Reconstruction(truth)
    moved.transform(pycolmap.Sim3d(2.0, pycolmap.Rotation3d(), np.ones(3)))
    moved.write(truth)
    assert not run(tmp_path, scene, "triangulation", options).reused


# --- intrinsics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_fixed_intrinsics_stay_and_others_are_refined(
    scene: Scene, tmp_path: Path, name: str
) -> None:
    focal = {}
    for fixed in (True, False):
        out = tmp_path / str(fixed)
        out.mkdir()
        run(out, with_camera(scene, focal=WRONG_FOCAL, fixed=fixed), name)
        focal[fixed] = model_focal(out)
    assert focal[True] == WRONG_FOCAL
    assert focal[False] == pytest.approx(600, abs=5)


def test_the_global_mapper_finds_the_focal_length_of_cameras_without_priors(
    scene: Scene, tmp_path: Path
) -> None:
    unknown = with_camera(scene, focal=1.2 * 640, prior=False)
    unknown.write_database(tmp_path / "database.db")
    report = run(tmp_path, unknown, "global")
    assert report.models[0].images == 8
    assert model_focal(tmp_path) == pytest.approx(600, abs=5)


# --- options --------------------------------------------------------------------------------------


def test_options_reach_the_mappers(scene: Scene, tmp_path: Path) -> None:
    few = run(tmp_path, scene, "incremental", {"image_names": scene.names[:5]})
    assert few.models[0].images == 5
    strict = {"mapper": {"filter_max_reproj_error": 0.3}}
    assert run(tmp_path, scene, "incremental", strict).models[0].reprojection_error < 0.2
    nested = {"incremental_options": strict}
    assert run(tmp_path, scene, "hierarchical", nested).models[0].reprojection_error < 0.2
    skipped = {"mapper": {"skip_retriangulation": True, "ba_num_iterations": 1}}
    assert run(tmp_path, scene, "global", skipped).models[0].images == 8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("incrementall", {}, r"mapper\.name: no mapper 'incrementall'; did you mean 'incremental'"),
        ("incremental", {"min_matches": 3}, r"mapper\.min_matches: no such option; did you mean"),
        ("incremental", {"mapper": {"init_min_inliers": 3}}, r"mapper\.mapper\.init_min_inliers: "),
        ("global", {"ba_refine_focal_length": False}, r"mapper\.ba_refine_focal_length: no such"),
        ("hierarchical", {"incremental_options": 3}, r"incremental_options: is a table"),
        ("triangulation", {}, r"mapper\.poses: triangulation needs a COLMAP model"),
        ("incremental", {"poses": "truth"}, r"mapper\.poses: no such option"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mapper_spec(name, options, 0, False)


def test_the_fingerprint_follows_every_setting() -> None:
    specs = [
        mapper_spec("incremental", {}, 0, False),
        mapper_spec("incremental", {}, 1, False),
        mapper_spec("incremental", {}, 0, True),
        mapper_spec("incremental", {"min_num_matches": 20}, 0, False),
        mapper_spec("incremental", {"mapper": {"init_min_tri_angle": 4}}, 0, False),
        mapper_spec("hierarchical", {}, 0, False),
    ]
    assert len({spec.fingerprint for spec in specs}) == len(specs)


def test_options_get_the_types_that_pycolmap_wants() -> None:
    options = {
        "mapper": {"init_min_tri_angle": 4, "image_selection_method": "MAX_VISIBLE_POINTS_NUM"},
        "constant_cameras": [2, 1],
    }
    checked = checked_options("incremental", options)
    assert checked["constant_cameras"] == {1, 2}
    assert type(checked["mapper"]["init_min_tri_angle"]) is float
    pycolmap.IncrementalPipelineOptions().mergedict(checked)
    # Only what was set: everything else stays at what the mapper decides.
    assert set(checked["mapper"]) == {"init_min_tri_angle", "image_selection_method"}
    assert set(MAPPERS) == {*RECONSTRUCTING, "triangulation"}


def test_poses_that_cannot_be_read_are_named(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mapper\.poses: triangulation needs .*nowhere"):
        run(tmp_path, scene, "triangulation", {"poses": str(tmp_path / "nowhere")})
    (tmp_path / "part").mkdir()
    with pytest.raises(ConfigError, match=r"mapper\.poses: .*part holds no COLMAP model"):
        run(tmp_path, scene, "triangulation", {"poses": str(tmp_path / "part")})


def test_poses_of_other_images_are_refused(scene: Scene, tmp_path: Path, truth: Path) -> None:
    other = pycolmap.Reconstruction(truth)
    for image in other.images.values():
        image.name = f"other/{image.name}"
    other.write(truth)
    with pytest.raises(ConfigError, match=r"mapper\.poses: no image of .*truth has the name"):
        run(tmp_path, scene, "triangulation", {"poses": str(truth)})
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".models*"))

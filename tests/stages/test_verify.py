from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry import poses
from sfm_match.geometry.cameras import Cameras
from sfm_match.io.store import Store
from sfm_match.spec import ConfigError, Spec
from sfm_match.stages.match import match_digest
from sfm_match.stages.verify import VerifyReport, verify, verify_digest, verify_spec
from sfm_match.types import ArrayF64, Features, Matches, Pair, TwoView, TwoViewConfig
from tests.colmap_scene import MATCHER, Scene, camera, synthesize


@pytest.fixture(scope="module")
def noisy() -> Scene:
    """Five images with noise and wrong matches, on which the random seed shows."""
    return synthesize(5, noise=0.7, inlier_ratio=0.7)


def run(
    scene: Scene,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    pairs: Sequence[Pair] | None = None,
    cameras: Cameras | None = None,
    workers: int = 1,
) -> tuple[dict[Pair, TwoView], VerifyReport, list[int]]:
    """Verify a scene with stores below a folder, which a later call uses again."""
    spec = verify_spec(options or {}, MATCHER, seed)
    features = Store.create(folder, Features, Spec("extractors", "synthetic", 1, {}))
    matches = Store.create(folder, Matches, MATCHER)
    if len(features) == 0:
        with features.writer() as writer:
            for name, digest in scene.digests.items():
                writer.add(name, digest, scene.features(name))
        with matches.writer() as pair_writer:
            for pair, matched in scene.matches.items():
                pair_writer.add(pair, match_digest(pair, scene.digests), matched)
    store = Store.create(folder, TwoView, spec)
    pairs = list(scene.matches) if pairs is None else pairs
    cameras = cameras or scene.cameras
    steps: list[int] = []
    report = verify(
        pairs,
        scene.digests,
        cameras,
        spec,
        features,
        matches,
        store,
        workers=workers,
        progress=steps.append,
    )
    found = {p: store.read(p, verify_digest(p, scene.digests, cameras)) for p in pairs}
    return found, report, steps


def content(found: Mapping[Pair, TwoView]) -> dict[Pair, list[Any]]:
    def plain(array: ArrayF64 | None) -> Any:
        return None if array is None else array.tolist()

    return {
        pair: [
            t.config,
            t.inliers.tolist(),
            *(plain(matrix) for matrix in (t.cam1_from_cam0, t.E, t.F, t.H)),
        ]
        for pair, t in found.items()
    }


def test_known_poses_and_wrong_matches_are_told_apart(tmp_path: Path) -> None:
    scene = synthesize(5, inlier_ratio=0.7)
    found, report, steps = run(scene, tmp_path)
    assert (report.computed, report.reused) == (10, 0)
    assert sum(steps) == 10
    for pair, two_view in found.items():
        assert two_view.config == TwoViewConfig.CALIBRATED
        # 200 of the matches are right.
        assert 200 <= two_view.num_inliers <= 215
        assert len(two_view.inliers) == len(scene.matches[pair]) > 250
        true = poses.relative_pose(scene.pose(pair.a), scene.pose(pair.b))
        assert two_view.cam1_from_cam0 is not None
        assert float(poses.pose_error(two_view.cam1_from_cam0, true)) < 1


def test_cameras_without_a_prior_give_fundamental_matrices(scene: Scene, tmp_path: Path) -> None:
    cameras = Cameras({1: camera(prior=False)}, scene.cameras.of_image, False)
    found, _, _ = run(scene, tmp_path, cameras=cameras)
    assert {two_view.config for two_view in found.values()} == {TwoViewConfig.UNCALIBRATED}


def test_the_seed_fixes_the_result_whatever_the_order_and_the_workers(
    noisy: Scene, tmp_path: Path
) -> None:
    pairs = list(noisy.matches)
    reference, _, _ = run(noisy, tmp_path / "a")
    shuffled = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    again, _, _ = run(noisy, tmp_path / "b", pairs=shuffled, workers=3)
    assert content(again) == content(reference)
    # And whatever was there before.
    run(noisy, tmp_path / "c", pairs=shuffled[:4])
    rest, report, _ = run(noisy, tmp_path / "c", workers=2)
    assert (report.computed, report.reused) == (6, 4)
    assert content(rest) == content(reference)


def test_another_seed_is_another_result(noisy: Scene, tmp_path: Path) -> None:
    reference, _, _ = run(noisy, tmp_path)
    other, report, _ = run(noisy, tmp_path, seed=1)
    assert (report.computed, report.reused) == (10, 0)
    assert content(other) != content(reference)


def test_what_is_there_is_not_computed_again(scene: Scene, tmp_path: Path) -> None:
    run(scene, tmp_path)
    _, report, steps = run(scene, tmp_path)
    assert (report.computed, report.reused) == (0, 15)
    assert sum(steps) == 15


def test_other_intrinsics_are_another_geometry(scene: Scene, tmp_path: Path) -> None:
    run(scene, tmp_path)
    cameras = Cameras({1: camera(focal=610.0)}, scene.cameras.of_image, False)
    assert run(scene, tmp_path, cameras=cameras)[1].computed == 15
    # What the cameras are called is not.
    names = dict.fromkeys(scene.names, 5)
    renamed = Cameras({5: camera(5)}, names, True)
    assert run(scene, tmp_path, cameras=renamed)[1].reused == 15


def test_pairs_with_few_or_no_matches(scene: Scene, tmp_path: Path) -> None:
    few = {
        pair: Matches(m.indices[:n], m.scores[:n])
        for n, (pair, m) in enumerate(scene.matches.items())
    }
    found, _, _ = run(replace(scene, matches=few), tmp_path)
    for pair, two_view in found.items():
        assert len(two_view.inliers) == len(few[pair]) < 15
        assert two_view.config == TwoViewConfig.DEGENERATE
        assert not two_view.inliers.any()


def test_options_reach_pycolmap(scene: Scene, tmp_path: Path) -> None:
    found, _, _ = run(scene, tmp_path, options={"min_num_inliers": 250})
    assert {two_view.config for two_view in found.values()} == {TwoViewConfig.DEGENERATE}
    spec = verify_spec({"ransac": {"max_error": 2}}, MATCHER, 3)
    assert spec.config["ransac"]["max_error"] == 2.0
    assert spec.config["compute_relative_pose"] is True
    assert spec.config["seed"] == 3
    assert spec.inputs == (MATCHER,)


def test_every_option_and_the_matcher_are_in_the_fingerprint() -> None:
    other = Spec("matchers", "other", 1, {})
    specs = [
        verify_spec({}, MATCHER, 0),
        verify_spec({}, MATCHER, 1),
        verify_spec({}, other, 0),
        verify_spec({"min_num_inliers": 16}, MATCHER, 0),
        verify_spec({"ransac": {"max_error": 2.0}}, MATCHER, 0),
    ]
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    default = pycolmap.TwoViewGeometryOptions().min_num_inliers
    same = verify_spec({"min_num_inliers": default}, MATCHER, 0)
    assert same.fingerprint == specs[0].fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_inliers": 3}, r"verify\.min_inliers: no such option; did you mean"),
        ({"ransac": {"maxerror": 3}}, r"verify\.ransac\.maxerror: .*did you mean 'max_error'"),
        ({"ransac": 3}, r"verify\.ransac: is a table of options, got 3"),
        ({"detect_watermark": 1}, r"verify\.detect_watermark: must be of type bool"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verify_spec(options, MATCHER, 0)

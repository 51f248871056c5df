"""MegaDepth-1500 and ScanNet-1500, on small made data sets in their layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.benchmarks.catalogue import protocol_of
from sfm_match.benchmarks.datasets import PoseSet
from sfm_match.benchmarks.listed import read_megadepth, read_scannet
from sfm_match.benchmarks.matched import show_images
from sfm_match.benchmarks.settings import PairConfig
from sfm_match.spec import ConfigError
from tests.protocols import layouts
from tests.protocols.layouts import NAMES, gallery_truth, homogeneous
from tests.protocols.runs import names_of, run

# Not the sides' own factor: the height is rounded down to a multiple of 8.
SIZE = 600, 450


@pytest.fixture(scope="module")
def megadepth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("megadepth")
    layouts.write_megadepth(root, SIZE)
    return root


@pytest.fixture(scope="module")
def scannet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scannet")
    layouts.write_scannet(root)
    return root


@pytest.fixture(scope="module")
def result(megadepth: Path) -> dict[str, Any]:
    # Grown to 840 pixels, and half as large: the same poses in either.
    return run("megadepth-1500", megadepth, megadepth / "out", options={"thresholds": (0.5, 1.0)})


def test_what_is_read_of_megadepth(megadepth: Path) -> None:
    found = read_megadepth(megadepth, None, PairConfig(), ())
    K, poses = gallery_truth(SIZE)
    pairs = found.pairs.truth.pairs
    assert [tuple(name[-6:-4] for name in pair.names) for pair in pairs] == [
        (NAMES[0], NAMES[1]),
        (NAMES[2], NAMES[3]),
        (NAMES[1], NAMES[0]),
    ]
    relative = homogeneous(poses[NAMES[1]]) @ np.linalg.inv(homogeneous(poses[NAMES[0]]))
    np.testing.assert_allclose(pairs[0].cam1_from_cam0, relative[:3], atol=1e-12)
    # K is for full-size images, in corner-origin pixels already.
    expected = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    np.testing.assert_allclose(pairs[0].cameras[0].params, expected)


def test_poses_are_found_in_full_size_pixels(result: dict[str, Any]) -> None:
    half, one = result["runs"]
    assert (half["estimator"], half["threshold"], one["threshold"]) == ("opencv", 0.5, 1.0)
    assert half["num_failed"] == 0
    assert max(row["error"] for row in one["pairs"]) < 3
    assert half["precision"] > 90
    assert names_of(half)[0] == names_of(half)[2][::-1]
    json.dumps(result, allow_nan=False)


def test_the_size_in_which_images_are_shown_is_the_protocol_s(
    megadepth: Path, result: dict[str, Any]
) -> None:
    assert result["settings"]["resize"] == "long-840/8"
    name = result["runs"][0]["pairs"][0]["name0"]
    shown = show_images(megadepth, [name], "long-840/8", "linear")
    assert (shown.file_size(name), shown.size(name)) == (SIZE, (840, 624))
    small = run("megadepth-1500", megadepth, megadepth / "out", options={"resize": "long-300/8"})
    # Were points not taken back to full size, no pose would be right.
    assert max(row["error"] for row in small["runs"][0]["pairs"]) < 6


def test_a_result_says_how_it_was_made(result: dict[str, Any]) -> None:
    assert (result["benchmark"], result["protocol"], result["seed"]) == (
        "megadepth-1500",
        "loftr",
        0,
    )
    assert result["features"]["config"]["max_keypoints"] == 700
    assert result["matcher"]["name"] == "nearest"
    assert result["recipe"]["features"]["max_keypoints"] == 700
    assert {"python", "pycolmap", "torch"} <= result["versions"].keys()
    assert {"processor", "cores", "threads", "device"} <= result["hardware"].keys()
    assert result["hardware"]["threads"] == 1
    assert {"read", "match", "score"} == result["seconds"].keys()
    assert result["ms"]["extract"] > 0


def test_scoring_again_matches_nothing_again(megadepth: Path, result: dict[str, Any]) -> None:
    shards = {path: path.stat().st_mtime_ns for path in megadepth.glob("out/*/*/*.h5")}
    again = run(
        "megadepth-1500", megadepth, megadepth / "out", options={"estimators": ("poselib",)}
    )
    assert {path: path.stat().st_mtime_ns for path in megadepth.glob("out/*/*/*.h5")} == shards
    assert again["runs"][0]["precision"] == result["runs"][0]["precision"]


def test_scannet_s_frames_and_cameras(scannet: Path) -> None:
    found = read_scannet(scannet, None, PairConfig(), ())
    pair = found.pairs.truth.pairs[0]
    assert pair.names == ("scene0707_00/color/15.jpg", "scene0707_00/color/585.jpg")
    assert found.pairs.frame == (640, 480)
    # The file counts from the centre of the first pixel: half a pixel more.
    K, _ = gallery_truth((640, 480))
    np.testing.assert_allclose(pair.cameras[0].params, [K[0, 0], K[1, 1], K[0, 2], K[1, 2]])


def test_scannet_s_poses(scannet: Path) -> None:
    result = run("scannet-1500", scannet, scannet / "out", protocol="superglue")
    assert max(row["error"] for row in result["runs"][0]["pairs"]) < 5
    assert result["runs"][0]["threshold"] == 1


def test_pairs_of_one_part_only(megadepth: Path) -> None:
    with pytest.raises(ConfigError, match=r"no scene '0015'; did you mean '0015_0\.1_0\.3'"):
        read_megadepth(megadepth, None, PairConfig(), ["0015"])
    assert len(read_megadepth(megadepth, None, PairConfig(), ["0015_0.1_0.3"]).pairs.groups) == 3


def test_missing_images_are_an_error(test_data: Path, tmp_path: Path) -> None:
    indices = test_data / "indices"
    _, config = protocol_of("megadepth-1500", "", {})
    assert isinstance(config, PairConfig)
    with pytest.raises(ConfigError, match=r"806 of the benchmark's 806 images are not there: Und"):
        read_megadepth(tmp_path, indices / "megadepth_test_1500_scene_info", config, ())
    with pytest.raises(ConfigError, match=r"images are not there: scene0707_00/color/105\.jpg"):
        read_scannet(tmp_path, indices / "scannet_test_1500", config, ())


def test_the_whole_real_lists_where_images_are(test_data: Path, tmp_path: Path) -> None:
    """Empty files in place of the images: all 1,500 pairs of both lists, in their order."""
    for read, name in (
        (read_megadepth, "megadepth_test_1500_scene_info"),
        (read_scannet, "scannet_test_1500"),
    ):
        index, root = test_data / "indices" / name, tmp_path / name
        found = _read_with_empty_files(read, root, index)
        assert len(found.pairs.truth.pairs) == len(found.pairs.groups) == 1500


def _read_with_empty_files(read: Any, root: Path, index: Path) -> PoseSet:
    from sfm_match.io.loftr_index import read_megadepth_index, read_scannet_index

    pairs = (read_megadepth_index if "megadepth" in index.name else read_scannet_index)(index)
    for name in {name for pair in pairs for name in pair.names}:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found: PoseSet = read(root, index, PairConfig(), ())
    return found

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry import poses
from sfm_match.io.pose_pairs import read_pose_pairs
from sfm_match.spec import ConfigError
from tests.pose_lists import K0, T, line_of, write_list


def test_a_line_is_read_and_the_principal_point_moves_by_half_a_pixel(tmp_path: Path) -> None:
    path = write_list(tmp_path, "# a comment", "", line_of(turns="1 3"))
    (pair,) = read_pose_pairs(path, ["a.jpg", "b.jpg"])
    assert pair.names == ("a.jpg", "b.jpg")
    assert pair.turns == (1, 3)
    # fx, fy as they are; (319.5, 239.5) is the middle of 640 x 480 with the origin in the corner.
    np.testing.assert_array_equal(pair.calibrations[0], [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    np.testing.assert_array_equal(
        pair.calibrations[1], [[800, 0, 400.5], [0, 805, 300.5], [0, 0, 1]]
    )
    np.testing.assert_allclose(pair.cam1_from_cam0, T[:3], atol=1e-15)
    assert pair.where == f"{path}, line 3"


@given(
    names=st.lists(
        st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12), unique=True
    ).filter(lambda names: len(names) >= 2),
    seed=st.integers(0, 2**32 - 1),
    turns=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
@settings(max_examples=50)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    seed: int,
    turns: tuple[int, int],
) -> None:
    names = [f"x{name}.jpg" for name in names]
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    pose[:3, 3] = rng.normal(size=3)
    k0, k1 = np.eye(3), np.eye(3)
    for k in (k0, k1):
        k[[0, 1], [0, 1]] = rng.uniform(100, 2000, 2)
        k[:2, 2] = rng.uniform(100, 2000, 2)
    text = line_of(f"{names[0]} {names[1]}", f"{turns[0]} {turns[1]}", k0, k1, pose)
    (pair,) = read_pose_pairs(write_list(tmp_path_factory.mktemp("list"), text), names)
    assert (pair.names, pair.turns) == ((names[0], names[1]), turns)
    for k, read in zip((k0, k1), pair.calibrations, strict=True):
        np.testing.assert_array_equal(read[:, :2], k[:, :2])
        np.testing.assert_array_equal(read[:, 2], k[:, 2] + (0.5, 0.5, 0))
    np.testing.assert_allclose(pair.cam1_from_cam0, pose[:3], atol=1e-14)


def test_names_with_spaces(tmp_path: Path) -> None:
    names = ["my a.jpg", "the b.jpg", "1 2 3.jpg"]
    path = write_list(tmp_path, line_of("my a.jpg the b.jpg"), line_of('"1 2 3.jpg" "my a.jpg"'))
    first, second = read_pose_pairs(path, names)
    assert first.names == ("my a.jpg", "the b.jpg")
    assert second.names == ("1 2 3.jpg", "my a.jpg")


def test_rotations_of_few_digits_become_rotations(tmp_path: Path) -> None:
    (pair,) = read_pose_pairs(write_list(tmp_path, line_of(digits=4)), [])
    rotation = pair.cam1_from_cam0[:, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert poses.rotation_error(rotation, T[:3, :3]) < 0.02


def test_a_pair_that_is_listed_twice_counts_twice(tmp_path: Path) -> None:
    path = write_list(tmp_path, line_of(), line_of("b.jpg a.jpg"), line_of())
    assert [pair.names[0] for pair in read_pose_pairs(path, [])] == ["a.jpg", "b.jpg", "a.jpg"]


SHEAR = K0.copy()
SHEAR[0, 1] = 2.0
NEGATIVE = K0.copy()
NEGATIVE[1, 1] = -3.0
MIRROR = T.copy()
MIRROR[:3, 0] *= -1
STRETCHED = T.copy()
STRETCHED[:3, 0] *= 1.1
TRANSPOSED = T.T.copy()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg b.jpg", r"line 2: expected name0 .*, got 2 values; pairs without cameras"),
        ("a.jpg b.jpg 0 0", r"got 4 values; pairs without cameras and poses are no truth"),
        (line_of()[:-2], r"line 2: expected name0 name1 .*, got 37 values$"),
        (line_of() + " 7", r"'a.jpg b.jpg 0': expected two known image names"),
        (line_of(turns="0 4"), r"a rotation is 0, 1, 2 or 3 quarter turns, got '4'"),
        (line_of(turns="90 0"), r"quarter turns, got '90'"),
        (line_of("a.jpg a.jpg"), r"'a.jpg' is paired with itself"),
        (line_of().replace("510", "five", 1), r"could not convert string to float: 'five'"),
        (line_of().replace("510", "nan", 1), r"not all numbers are finite"),
        (line_of(k0=SHEAR), r"K0: has a skew of 2"),
        (line_of(k1=NEGATIVE), r"K1: must be fx 0 cx 0 fy cy 0 0 1 .*got 500 0 319.5 0 -3"),
        (line_of(k0=K0.T), r"K0: must be fx 0 cx"),
        (line_of(pose=TRANSPOSED), r"T_0to1: its last row must be 0 0 0 1"),
        (line_of(pose=MIRROR), r"T_0to1: its upper left part is not a rotation"),
        (line_of(pose=STRETCHED), r"T_0to1: its upper left part is not a rotation"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write_list(tmp_path, line_of(), line)
    with pytest.raises(ConfigError, match=message) as error:
        read_pose_pairs(path, ["a.jpg", "b.jpg"])
    assert str(error.value).startswith(f"{path}, line 2: ")


def test_an_empty_or_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no pair; a line is name0 name1"):
        read_pose_pairs(write_list(tmp_path, "# nothing"), [])
    with pytest.raises(ConfigError, match=r"none\.txt: the list of pairs cannot be read"):
        read_pose_pairs(tmp_path / "none.txt", [])


# --- the lists of the public benchmarks -----------------------------------------------------------


def test_megadepth_1500(tmp_path: Path, test_data: Path) -> None:
    folder = test_data / "indices" / "megadepth_test_1500_scene_info"
    lines, expected = [], []
    for scene in (folder / "megadepth_test_1500.txt").read_text().split():
        index = np.load(folder / f"{scene}.npz", allow_pickle=True)
        for (i, j), *_ in index["pair_infos"]:
            pose = index["poses"][j] @ np.linalg.inv(index["poses"][i])
            names = f"{index['image_paths'][i]} {index['image_paths'][j]}"
            lines.append(
                line_of(names, "0 0", index["intrinsics"][i], index["intrinsics"][j], pose)
            )
            expected.append(poses.relative_pose(index["poses"][i][:3], index["poses"][j][:3]))
    found = read_pose_pairs(write_list(tmp_path, *lines), [])
    assert len(found) == 1500
    assert len({frozenset(pair.names) for pair in found}) == 1488
    stacked = np.stack([pair.cam1_from_cam0 for pair in found])
    assert poses.pose_error(stacked, np.stack(expected)).max() < 1e-6


def test_scannet_1500(tmp_path: Path, test_data: Path) -> None:
    folder = test_data / "indices" / "scannet_test_1500"
    index, intrinsics = np.load(folder / "test.npz"), np.load(folder / "intrinsics.npz")
    lines = []
    for (scene, part, i, j), flat in zip(index["name"], index["rel_pose"], strict=True):
        name = f"scene{scene:04d}_{part:02d}"
        pose = np.vstack([flat.reshape(3, 4), [0, 0, 0, 1]])
        k = intrinsics[name]
        lines.append(line_of(f"{name}/color/{i}.jpg {name}/color/{j}.jpg", "0 0", k, k, pose))
    found = read_pose_pairs(write_list(tmp_path, *lines), [])
    assert len(found) == 1500
    stacked = np.stack([pair.cam1_from_cam0 for pair in found])
    np.testing.assert_allclose(stacked, index["rel_pose"].reshape(-1, 3, 4), atol=2e-5)
    rotations = stacked[..., :3]
    eye = np.broadcast_to(np.eye(3), rotations.shape)
    np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), eye, atol=1e-14)

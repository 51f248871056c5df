from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.io.loftr_index import read_megadepth_index, read_scannet_index
from sfm_match.spec import ConfigError


class Malice:
    """What a pickle may hold: reading it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def part(**changes: Any) -> dict[str, Any]:
    K, T = np.diag([10.0, 20, 1]), np.eye(4)
    moved = np.eye(4)
    moved[:3, 3] = [1, 2, 3]
    objects: dict[str, list[Any]] = {
        "image_paths": ["a.jpg", None, "b.jpg"],
        "intrinsics": [K, None, 2 * K],
    }
    content: dict[str, Any] = {"pair_infos": [(np.array([2, 0]), np.float64(0.1), np.zeros(4))]}
    objects["poses"] = [T, None, moved]
    for name, values in objects.items():
        content[name] = np.empty(3, object)
        for i, value in enumerate(values):
            content[name][i] = value
    return content | changes


def write(folder: Path, content: Any, archive: bool = False) -> None:
    (folder / "megadepth_test_1500.txt").write_text("0015_0.1_0.3\n")
    path = folder / "0015_0.1_0.3.npz"
    if archive:
        infos = np.empty(1, object)
        infos[:] = [content["pair_infos"][0]]
        np.savez(path, **{**content, "pair_infos": infos})
    else:
        path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("archive", [False, True])
def test_a_small_part(tmp_path: Path, archive: bool) -> None:
    write(tmp_path, part(), archive)
    (pair,) = read_megadepth_index(tmp_path)
    assert (pair.names, pair.part) == (("b.jpg", "a.jpg"), "0015_0.1_0.3")
    np.testing.assert_allclose(pair.cam1_from_cam0, [[1, 0, 0, -1], [0, 1, 0, -2], [0, 0, 1, -3]])
    assert [K[1, 1] for K in pair.calibrations] == [40, 20]


@pytest.mark.parametrize("archive", [False, True])
def test_no_code_is_run(tmp_path: Path, archive: bool) -> None:
    target = tmp_path / "owned"
    poses = np.empty(3, object)
    poses[:] = [np.eye(4), None, Malice(target)]
    write(tmp_path, part(poses=poses), archive)
    with pytest.raises(ConfigError, match=r"0015_0\.1_0\.3\.npz: .* it would call posix\.system"):
        read_megadepth_index(tmp_path)
    assert not target.exists()


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no megadepth_test_1500\.txt"):
        read_megadepth_index(tmp_path)
    write(tmp_path, part())
    path = tmp_path / "0015_0.1_0.3.npz"
    whole = path.read_bytes()
    for content in (whole[:100], b"", b"text", pickle.dumps({"image_paths": 1})):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is no part of a MegaDepth index"):
            read_megadepth_index(tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match="no such file; the index names it"):
        read_megadepth_index(tmp_path)
    with pytest.raises(ConfigError, match=r"test\.npz: no such file of the ScanNet index"):
        read_scannet_index(tmp_path)


def test_the_real_index_of_megadepth(test_data: Path) -> None:
    pairs = read_megadepth_index(test_data / "indices" / "megadepth_test_1500_scene_info")
    assert len(pairs) == 1500
    assert len({frozenset(pair.names) for pair in pairs}) == 1488  # 12 pairs in both orders
    assert [
        sum(p.part == part for p in pairs) for part in dict.fromkeys(p.part for p in pairs)
    ] == [300] * 5
    first = pairs[0]
    assert first.part == "0022_0.1_0.3"
    assert first.names[0] == "Undistorted_SfM/0022/images/427154679_de14c315f4_o.jpg"
    for pair in pairs:
        R = pair.cam1_from_cam0[:, :3]
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
        for K in pair.calibrations:
            # The principal point is the middle, to half a pixel: the origin is the corner.
            assert (2 * K[:2, 2] % 1 == 0).all()
    turned = {p.names: p for p in pairs}
    both = [p for p in pairs if p.names[::-1] in turned]
    assert len(both) == 24
    back = turned[both[0].names[::-1]].cam1_from_cam0
    np.testing.assert_allclose(back[:, :3] @ both[0].cam1_from_cam0[:, :3], np.eye(3), atol=1e-9)


def test_the_real_index_of_scannet(test_data: Path) -> None:
    pairs = read_scannet_index(test_data / "indices" / "scannet_test_1500")
    assert (len(pairs), len({pair.part for pair in pairs})) == (1500, 100)
    first = pairs[0]
    assert first.names == ("scene0707_00/color/15.jpg", "scene0707_00/color/585.jpg")
    # The same numbers as in SuperGlue's list of these pairs: T_0to1, to five digits.
    np.testing.assert_allclose(
        first.cam1_from_cam0,
        [
            [0.97598, 0.05925, 0.20966, -0.03968],
            [-0.08203, 0.99143, 0.10171, 0.00746],
            [-0.20184, -0.11647, 0.97247, 0.54255],
        ],
        atol=1e-5,
    )
    # And K is that of the list, of 1296 x 968 pixels, in frames of 640 x 480.
    K = first.calibrations[0]
    assert K[0, 0] == pytest.approx(1165.72 * 640 / 1296, rel=1e-3)
    assert K[0, 2] == pytest.approx(649.095 * 640 / 1296, abs=0.01)
    assert K[1, 2] == pytest.approx(484.765 * 480 / 968, abs=0.01)

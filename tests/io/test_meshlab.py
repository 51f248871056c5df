from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfm_match.io.meshlab import read_meshlab_project
from sfm_match.spec import ConfigError

PROJECT = """<!DOCTYPE MeshLabDocument>
<MeshLabProject>
 <MeshGroup>
  <MLMesh label="one" filename="scan1.ply">
   <MLMatrix44>
0 -1 0 1.5
1 0 0 2
0 0 1 3
0 0 0 1
</MLMatrix44>
  </MLMesh>
 </MeshGroup>
 <RasterGroup/>
</MeshLabProject>
"""


def test_a_project(tmp_path: Path) -> None:
    path = tmp_path / "scan_alignment.mlp"
    path.write_text(PROJECT)
    found = read_meshlab_project(path)
    assert list(found) == [tmp_path / "scan1.ply"]
    expected = [[0, -1, 0, 1.5], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    np.testing.assert_array_equal(found[tmp_path / "scan1.ply"], expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</MeshLabProject>", "", "is no MeshLab project"),
        ('filename="scan1.ply"', "", "no file name or no matrix"),
        ("1.5", "", "no file name or no matrix"),
        ("MLMesh", "Other", "holds no mesh"),
        ("MeshGroup", "Group", "holds no mesh"),
    ],
)
def test_wrong_projects(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "scan_alignment.mlp"
    path.write_text(PROJECT.replace(old, new))
    with pytest.raises(ConfigError, match=rf"scan_alignment\.mlp: .*{message}"):
        read_meshlab_project(path)
    with pytest.raises(ConfigError, match="is no MeshLab project"):
        read_meshlab_project(tmp_path / "other.mlp")

"""Lists of pairs with intrinsics and relative poses, as the public benchmarks write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from sfm_match.types import ArrayF64

K0 = np.array([[500.0, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
K1 = np.array([[800.0, 0, 400], [0, 805, 300], [0, 0, 1]])
T = np.vstack(
    [np.column_stack([Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix(), [1, 2, 3]]), [0, 0, 0, 1]]
)


def line_of(
    names: str = "a.jpg b.jpg",
    turns: str = "0 0",
    k0: ArrayF64 = K0,
    k1: ArrayF64 = K1,
    pose: ArrayF64 = T,
    digits: int = 17,
) -> str:
    """Return the line of a pair: names, quarter turns, K0, K1, and T_0to1 (4, 4)."""
    numbers = [f"{value:.{digits}g}" for matrix in (k0, k1, pose) for value in matrix.ravel()]
    return " ".join([names, turns, *numbers])


def write_list(folder: Path, *lines: str) -> Path:
    """Write lines as the file `pairs.txt` of a folder."""
    path = folder / "pairs.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

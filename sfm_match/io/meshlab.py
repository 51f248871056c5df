"""MeshLab project files (`.mlp`): which meshes there are and where they lie."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64


def read_meshlab_project(path: Path) -> dict[Path, ArrayF64]:
    """Return the meshes of the first group: their files and ``world_from_mesh`` float64 (4, 4).

    Raises:
        ConfigError: it cannot be read, or a mesh has no file or no matrix.
    """
    try:
        group = ElementTree.parse(path).getroot().find("MeshGroup")
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(f"{path}: is no MeshLab project: {error}") from None
    found = {}
    for mesh in () if group is None else group.findall("MLMesh"):
        name, text = mesh.get("filename"), mesh.findtext("MLMatrix44")
        try:
            matrix = np.array((text or "").split(), np.float64).reshape(4, 4)
        except ValueError:
            name = None
        if not name:
            raise ConfigError(f"{path}: a mesh has no file name or no matrix of 16 numbers")
        found[path.parent / name] = matrix
    if not found:
        raise ConfigError(f"{path}: holds no mesh")
    return found

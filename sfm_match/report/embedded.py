"""What the page's programs read: pictures, points, cameras, pairs and the matrix, as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sfm_match.geometry.raster import points_to_upright
from sfm_match.io.match_graph import read_image_points, read_pair_points
from sfm_match.report.errors import Observations
from sfm_match.report.graph import match_matrix
from sfm_match.report.material import Material
from sfm_match.report.model_view import ModelView, evenly
from sfm_match.report.pairs_shown import ShownPair, some_lines
from sfm_match.report.thumbnails import Thumbnail
from sfm_match.types import ArrayF32, ArrayF64

MAX_KEYPOINTS = 60_000
MAX_KEYPOINTS_PER_IMAGE = 1500
MAX_INLIERS, MAX_OUTLIERS = 120, 60
MAX_MATRIX_SIDE = 400

_STEPS = 65535
NO_POINT = 65535
ERROR_STEPS_PER_PIXEL = 1000


def safe_json(content: Any) -> str:
    """Return JSON that may stand in a script element, whatever the strings in it are."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def embed_images(
    names: Sequence[str],
    pictures: Mapping[str, Thumbnail],
    material: Material,
    observed: Mapping[str, Observations],
) -> dict[str, Any]:
    """Return the images, each with its picture and some of its keypoints.

    Keypoints are x, y (parts of the width and height of the upright picture) and the reprojection
    error in thousandths of a pixel, as uint16; `NO_POINT` where a keypoint sees no 3D point.
    """
    share = max(min(MAX_KEYPOINTS // max(len(names), 1), MAX_KEYPOINTS_PER_IMAGE), 1)
    in_database = set(material.graph.names) if material.graph else set()
    images, encoded = [], list[str]()
    pieces = [np.zeros((0, 3), np.uint16)]
    for name in names:
        shown: dict[str, Any] = {"n": name, "p": -1, "k": 0}
        if name in pictures:
            shown |= {"p": len(encoded), "w": pictures[name].size[0], "h": pictures[name].size[1]}
            encoded.append(base64.b64encode(pictures[name].jpeg).decode())
            if name in observed:
                found = observed[name]
            elif name in in_database:
                points = read_image_points(material.database, name).astype(np.float64)
                found = Observations(points, np.full(len(points), np.nan))
            else:
                found = Observations(np.zeros((0, 2)), np.zeros(0))
            rows = evenly(len(found.keypoints), share)
            places = _in_picture(found.keypoints[rows].astype(np.float32), pictures[name])
            pieces.append(np.column_stack([places, _error_steps(found.errors[rows])]))
            shown["k"] = len(rows)
        images.append(shown)
    return {"images": images, "pictures": encoded, "keypoints": _packed(np.concatenate(pieces))}


def embed_pairs(
    chosen: Sequence[ShownPair], pictures: Mapping[str, Thumbnail], material: Material
) -> dict[str, Any]:
    """Return the pairs that are drawn, with their pictures."""
    encoded: dict[str, list[Any]] = {}
    pairs = []
    for pair in chosen:
        if not {pair.a, pair.b} <= pictures.keys():
            continue
        found = read_pair_points(material.database, pair.a, pair.b)
        points0, points1, inliers = some_lines(found, MAX_INLIERS, MAX_OUTLIERS)
        ends = [
            _in_picture(points, pictures[name])
            for points, name in ((points0, pair.a), (points1, pair.b))
        ]
        for name in (pair.a, pair.b):
            shown = pictures[name]
            encoded[name] = [*shown.size, base64.b64encode(shown.jpeg).decode()]
        pairs.append(
            {
                "a": pair.a,
                "b": pair.b,
                "outliers": int(np.count_nonzero(~inliers)),
                "lines": _packed(np.column_stack(ends)),
            }
        )
    return {"pairs": pairs, "pairPictures": encoded}


def embed_matrix(material: Material) -> dict[str, Any]:
    """Return the matrix of verified matches, uint16 (larger counts are cut off), row by row."""
    graph = material.graph
    if graph is None or not len(graph.pairs):
        return {}
    matrix, step = match_matrix(len(graph.names), graph.pairs, graph.num_inliers, MAX_MATRIX_SIDE)
    values = _packed(np.minimum(matrix, _STEPS).astype(np.uint16))
    firsts = [graph.names[row] for row in range(0, len(graph.names), step)]
    return {"matrix": {"names": firsts, "step": step, "values": values}}


def embed_model(view: ModelView, names: Sequence[str]) -> dict[str, Any]:
    """Return the points and cameras of a model; cameras by the rows of their images in `names`."""
    row_of = {name: row for row, name in enumerate(names)}
    return {
        "model": {
            "points": _packed(view.points.astype(np.float32)),
            "colours": _packed(view.colours),
            "cameras": [row_of[name] for name in view.names],
            "frusta": _packed(view.frusta.astype(np.float32)),
            "trueCameras": [row_of[name] for name in view.true_names],
            "trueFrusta": _packed(view.true_frusta.astype(np.float32)),
            "eye": view.eye.round(4).tolist(),
            "radius": view.radius,
        }
    }


def _in_picture(points: ArrayF32, picture: Thumbnail) -> npt.NDArray[np.uint16]:
    """Return points (N, 2) of the file's raster as parts of the upright picture's sides."""
    size = np.array(picture.full_size, np.int32)
    upright = points_to_upright(points, size, picture.orientation)
    is_turned = picture.orientation >= 5
    parts = upright / (size[::-1] if is_turned else size)
    return np.round(np.clip(parts, 0, 1) * _STEPS).astype(np.uint16)


def _error_steps(errors: ArrayF64) -> npt.NDArray[np.uint16]:
    steps = np.minimum(np.nan_to_num(errors) * ERROR_STEPS_PER_PIXEL, NO_POINT - 1)
    return np.where(np.isnan(errors), NO_POINT, np.round(steps)).astype(np.uint16)


def _packed(array: npt.NDArray[Any]) -> str:
    """Return the values of an array, little-endian, in base64."""
    ordered = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(ordered.tobytes()).decode()

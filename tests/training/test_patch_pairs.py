from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from sfm_match.models.matchnet import normalised
from sfm_match.spec import Spec
from sfm_match.training.light import Light
from sfm_match.training.pairs import DensePair
from sfm_match.training.patch_pairs import (
    Cut,
    PatchPairs,
    corresponding,
    gather,
    patch_pairs,
    record_type,
)
from sfm_match.training.tracked import Tracked, tracking
from sfm_match.training.warps import Warps, flow_of, warping
from sfm_match.types import ArrayF32, ArrayF64, Extractor, Features, Image
from tests.matchnet_weights import random_network, write
from tests.training.test_warps import STILL, picture

SIZE = 160
torch.set_num_threads(1)


def sift() -> Extractor:
    extractor: Extractor = Spec.parse("extractors", "sift", {}).build()
    return extractor


@cache
def found(seed: int = 0) -> PatchPairs:
    source = warping([picture(0), picture(1)], Warps(size=SIZE), STILL)
    return patch_pairs(source(np.random.default_rng(seed)), sift(), Cut(), number=7)


def features(points: ArrayF64, scales: ArrayF64, angles: ArrayF64) -> Features:
    num = len(points)
    return Features(
        keypoints=points.astype(np.float32),
        scores=np.ones(num, np.float32),
        descriptors=np.zeros((num, 4), np.float16),
        image_size=np.array([SIZE, SIZE], np.int32),
        scales=scales.astype(np.float32),
        orientations=angles.astype(np.float32),
    )


def similarity(zoom: float, turn: float) -> ArrayF64:
    """Return a similarity that keeps the middle of a crop where it is."""
    cos, sin, middle = zoom * np.cos(turn), zoom * np.sin(turn), SIZE / 2
    linear = np.array([[cos, -sin], [sin, cos]])
    shift = middle - linear @ [middle, middle]
    return np.vstack([np.column_stack([linear, shift]), [0, 0, 1]])


def scattered(seed: int, num: int = 60) -> Features:
    rng = np.random.default_rng(seed)
    points = rng.uniform(40, SIZE - 40, (num, 2))
    return features(points, rng.uniform(2, 4, num), rng.uniform(-np.pi, np.pi, num))


def carried(a: Features, zoom: float, turn: float) -> Features:
    matrix = similarity(zoom, turn)
    points = a.keypoints @ matrix[:2, :2].T + matrix[:2, 2]
    assert a.scales is not None
    assert a.orientations is not None
    angles = np.mod(a.orientations + turn + np.pi, 2 * np.pi) - np.pi
    return features(points, (a.scales * zoom).astype(np.float64), angles)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.floats(0.7, 1.4), st.floats(-3.0, 3.0), st.booleans())
def test_carried_keypoints_are_the_same(seed: int, zoom: float, turn: float, few: bool) -> None:
    a = scattered(seed)
    flow = flow_of(similarity(zoom, turn), SIZE)
    if few:  # as tracks are: known at keypoints only
        flow = known_at(a, flow)
    order = np.random.default_rng(seed).permutation(len(a))
    b = carried(a, zoom, turn).take(order)
    rows, columns = corresponding(a, b, flow, Cut())
    assert sorted(rows.tolist()) == list(range(len(a)))
    # Where two are nearly at one place, either is the same.
    errors = b.keypoints[columns] - carried(a, zoom, turn).keypoints[rows]
    assert np.abs(errors).max() < 3
    assert (order[columns] == rows).mean() > 0.95


def known_at(a: Features, flow: ArrayF32) -> ArrayF32:
    x, y = a.keypoints.astype(int).T
    sparse = np.full_like(flow, np.nan)
    sparse[y, x] = flow[y, x]
    return sparse


@pytest.mark.parametrize(
    ("shift", "zoom", "turn", "same"),
    [
        (0.0, 1.0, 0.0, True),
        (2.0, 1.0, 0.0, True),
        (3.5, 1.0, 0.0, False),
        (0.0, 1.15, 0.0, True),
        (0.0, 1.25, 0.0, False),
        (0.0, 1.0, 0.35, True),
        (0.0, 1.0, 0.45, False),
    ],
)
def test_what_is_elsewhere_larger_or_turned_is_not_the_same(
    shift: float, zoom: float, turn: float, same: bool
) -> None:
    a = features(np.array([[80.0, 70.0]]), np.array([4.0]), np.array([3.0]))
    b = features(np.array([[80 + shift, 70.0]]), np.array([4 * zoom]), np.array([3 + turn]))
    rows, columns = corresponding(a, b, flow_of(np.eye(3), SIZE), Cut())
    assert (rows.tolist(), columns.tolist()) == (([0], [0]) if same else ([], []))
    nowhere = np.full((SIZE, SIZE, 2), np.nan, np.float32)
    assert len(corresponding(a, b, nowhere, Cut())[0]) == 0
    assert len(corresponding(a, b.take(np.zeros(0, int)), flow_of(np.eye(3), SIZE), Cut())[0]) == 0


def test_small_patches_must_lie_closer() -> None:
    a, b = (features(np.array([[80.0 + x, 70]]), np.ones(1), np.zeros(1)) for x in (0, 1.2))
    flow = flow_of(np.eye(3), SIZE)
    assert len(corresponding(a, b, flow, Cut(magnification=12))[0]) == 0  # of 12 pixels: 0.94
    assert len(corresponding(a, b, flow, Cut(magnification=24))[0]) == 1


def test_patches_of_the_same_look_alike() -> None:
    records = found()
    assert len(records) > 15
    assert (records["pictures"] == 7).all()
    values = records["patches"].reshape(len(records), 2, -1).astype(np.float64)
    values -= values.mean(axis=2, keepdims=True)
    values /= np.linalg.norm(values, axis=2, keepdims=True)
    likeness = values[:, 0] @ values[:, 1].T
    assert np.median(likeness.diagonal()) > 0.85
    assert np.median(likeness[~np.eye(len(records), dtype=bool)]) < 0.5
    # They are whole.
    half = records["sides"][..., None] / 2
    assert (records["places"] - half >= 0).all()
    assert (records["places"] + half <= SIZE).all()


def test_patches_are_those_that_the_extractor_describes(tmp_path: Path) -> None:
    pair = warping([picture(0)], Warps(size=SIZE), STILL)(np.random.default_rng(3))
    records = patch_pairs(pair, sift(), Cut())
    network = random_network(16, 16)
    path = str(write(network, tmp_path / "weights.safetensors"))
    extractor: Extractor = Spec.parse("extractors", "matchnet", {"weights": path}).build()
    for side, image in enumerate((pair.image0, pair.image1)):
        expected = extractor(image)
        assert expected.scales is not None
        keypoints = np.column_stack([expected.keypoints, 12 * expected.scales])
        patches = torch.from_numpy(records["patches"][:, side, None]).float()
        with torch.inference_mode():
            found = network.tower(normalised(patches)).numpy()
        # Some keypoints have two orientations: there are two descriptors at one place.
        wanted = np.column_stack([records["places"][:, side], records["sides"][:, side]])
        same = np.abs(wanted[:, None] - keypoints).max(axis=2) < 1e-3
        differences = np.abs(found[:, None] - expected.descriptors).max(axis=2)
        # Grey values are rounded, and descriptors to half precision.
        assert (np.where(same, differences, np.inf).min(axis=1) < 1e-3).all()
        assert np.median(differences[~same]) > 5e-3


def write_model(folder: Path, places: ArrayF32, shift: tuple[int, int]) -> None:
    """Write a COLMAP model of two cameras side by side before a plane of points at depth 1."""
    focal, (width, height) = 500.0, (400, 300)
    points = (places - [width / 2, height / 2]) / focal
    files: dict[str, list[str]] = {"cameras": [], "images": [], "points3D": []}
    files["cameras"] = [f"1 PINHOLE {width} {height} {focal} {focal} {width / 2} {height / 2}"]
    for number in (0, 1):
        x, y = (-number * side / focal for side in shift)
        files["images"].append(f"{number + 1} 1 0 0 0 {x} {y} 0 1 {number}.png")
        observed = places - number * np.array(shift)
        rows = [f"{u} {v} {i + 1}" for i, (u, v) in enumerate(observed)]
        files["images"].append(" ".join(rows))
    for i, (x, y) in enumerate(points):
        files["points3D"].append(f"{i + 1} {x} {y} 1 0 0 0 0.1 1 {i} 2 {i}")
    folder.mkdir()
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_patches_from_the_tracks_of_a_model(tmp_path: Path) -> None:
    whole, shift = picture(0, (320, 430)), (25, 10)
    for number in (0, 1):
        x, y = (number * side for side in shift)
        image = PillowImage.fromarray(whole[y : y + 300, x : x + 400])
        image.save(tmp_path / f"{number}.png")
    keypoints = sift()(whole[:300, :400]).keypoints
    inside = (keypoints > shift).all(axis=1)
    write_model(tmp_path / "model", keypoints[inside][::2], shift)
    tracked = Tracked(size=SIZE, resize=400, min_shared=20, min_in_crop=5)
    source = tracking(tmp_path / "model", tmp_path, tracked, Light())
    pool = gather(source, sift(), Cut(), 4, 1000, (0,))
    assert len(pool) > 20
    for number in np.unique(pool["pictures"]):
        records = pool[pool["pictures"] == number]
        moves = records["places"][:, 1] - records["places"][:, 0]
        assert np.abs(moves - np.median(moves, axis=0)).max() < 2.5
        assert np.median(np.abs(moves - np.median(moves, axis=0))) < 0.5


def test_the_pool_follows_from_its_seeds_and_is_bounded() -> None:
    source = warping([picture(0), picture(1)], Warps(size=SIZE), Light())
    told: list[int] = []
    pool = gather(source, sift(), Cut(), 4, 10_000, (0, 1), told.append)
    assert told == [1] * 4
    again = gather(source, sift(), Cut(), 4, 10_000, (0, 1))
    assert pool.tobytes() == again.tobytes()
    assert pool.tobytes() != gather(source, sift(), Cut(), 4, 10_000, (0, 2)).tobytes()
    few = gather(source, sift(), Cut(), 4, 20, (0, 1))
    assert len(pool) > 40
    assert len(few) == 20
    whole = {record.tobytes() for record in pool}
    assert all(record.tobytes() in whole for record in few)
    assert (np.diff(few["pictures"]) >= 0).all()
    assert len(np.unique(few["pictures"])) > 1


def test_pictures_without_keypoints_give_no_patches() -> None:
    blank: Image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pair = DensePair(blank, blank, flow_of(np.eye(3), SIZE))
    records = patch_pairs(pair, sift(), Cut())
    assert len(records) == 0
    assert records.dtype == record_type(128)

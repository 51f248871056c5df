from __future__ import annotations

import dataclasses
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfm_match.matchers import generative_graph
from sfm_match.matchers.generative_graph import Config
from sfm_match.models.generative_graph import GenerativeGraph, NetworkConfig
from sfm_match.models.generative_graph_inputs import network_bytes
from sfm_match.spec import ConfigError, Spec
from sfm_match.training.graph_pairs import dropped_pair
from sfm_match.types import Features, Matches, View
from sfm_match.weights import WeightsError
from tests.models.generative_graphs import DIM, features

SOURCE = Spec("extractors", "sift", 1, {})
VARIANTS: list[dict[str, Any]] = [
    {},
    {"solver": "sinkhorn"},
    {"solver": "hungarian"},
    {"edges": "knn", "num_neighbours": 5},
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    torch.manual_seed(0)
    path.write_bytes(network_bytes(GenerativeGraph(NetworkConfig(descriptor_dim=DIM))))
    return path


def build(path: Path, **options: Any) -> Any:
    return Spec.parse("matchers", "generative_graph", {"weights": str(path), **options}).build()


def match(matcher: Any, a: Features, b: Features) -> Matches:
    (found,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    assert isinstance(found, Matches)
    return found


@cache
def sides(num: int = 150) -> tuple[Features, Features, set[tuple[int, int]]]:
    """Return keypoints of which a quarter is missing on each side, and the true matches."""
    pair = dropped_pair(np.random.default_rng(0), features(num), 0.25, jitter=1.0, noise=0.2)
    rows = np.flatnonzero(pair.partners0 >= 0)
    true = {(int(i), int(pair.partners0[i])) for i in rows}
    return pair.features0, pair.features1, true


def as_set(found: Matches) -> set[tuple[int, int]]:
    return {(a, b) for a, b in found.indices.tolist()}


@pytest.mark.parametrize("options", VARIANTS)
def test_it_finds_true_matches_one_to_one(weights_file: Path, options: dict[str, Any]) -> None:
    a, b, true = sides()
    found = match(build(weights_file, **options), a, b)
    rows = as_set(found)
    assert len(found) == len(rows) == len({i for i, _ in rows}) == len({j for _, j in rows})
    assert len(rows & true) > 0.9 * len(true)
    # Untrained, being unmatched costs little enough that the best as a whole leaves nobody out.
    assert len(rows & true) > (0.8 if options.get("solver") == "hungarian" else 0.9) * len(rows)
    assert (np.diff(found.indices[:, 0]) > 0).all()
    assert found.scores.min() > 0.1
    assert found.scores.max() <= 1


@pytest.mark.parametrize("options", VARIANTS)
def test_order_and_sides_do_not_matter(weights_file: Path, options: dict[str, Any]) -> None:
    a, b, _ = sides()
    matcher = build(weights_file, **options)
    plain = as_set(match(matcher, a, b))
    order = np.random.default_rng(1).permutation(len(a))
    permuted = {(int(order[i]), j) for i, j in as_set(match(matcher, a.take(order), b))}
    swapped = as_set(match(matcher, b, a).flipped())
    assert len(plain ^ permuted) <= 0.02 * len(plain)
    assert len(plain ^ swapped) <= 0.02 * len(plain)


def test_size_of_image_and_place_do_not_matter(weights_file: Path) -> None:
    a, b, _ = sides()
    assert a.scales is not None
    larger = dataclasses.replace(
        a, keypoints=a.keypoints * np.float32(3) + np.float32(50), scales=a.scales * np.float32(3)
    )
    matcher = build(weights_file)
    plain, other = as_set(match(matcher, a, b)), as_set(match(matcher, larger, b))
    assert len(plain ^ other) <= 0.02 * len(plain)


# --- wrong and unusual input ----------------------------------------------------------------------


def degenerate(kind: str) -> Features:
    a, _, _ = sides()
    if kind == "line":
        points = np.stack([np.arange(len(a)), 2 * np.arange(len(a))], axis=1).astype(np.float32)
        return dataclasses.replace(a, keypoints=points)
    if kind == "one place":
        return dataclasses.replace(a, keypoints=np.full_like(a.keypoints, 7.0))
    if kind == "duplicates":
        return a.take(np.repeat(np.arange(40), 2))
    return a.take(np.arange(int(kind)))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("kind", ["0", "1", "2", "3", "line", "one place", "duplicates"])
def test_keypoints_without_a_triangulation(
    weights_file: Path, options: dict[str, Any], kind: str
) -> None:
    strange, (_, normal, _) = degenerate(kind), sides()
    matcher = build(weights_file, **options)
    for a, b in ((strange, normal), (normal, strange), (strange, strange)):
        rows = as_set(match(matcher, a, b))
        assert len({i for i, _ in rows}) == len({j for _, j in rows}) == len(rows)
        assert len(rows) <= min(len(a), len(b))


def test_features_without_scale_and_orientation(weights_file: Path) -> None:
    a, b, true = sides()
    a, b = (dataclasses.replace(side, scales=None, orientations=None) for side in (a, b))
    assert len(as_set(match(build(weights_file), a, b)) & true) > 0.9 * len(true)


def test_descriptors_that_are_not_finite_are_ignored(
    weights_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b, _ = sides()
    broken = a.descriptors.copy()
    broken[[0, 10]] = np.nan
    matcher = build(weights_file)
    with caplog.at_level(logging.WARNING, "sfm_match"):
        found = match(matcher, dataclasses.replace(a, descriptors=broken), b)
    assert f"2 of {len(a)} descriptors are not finite" in caplog.text
    rest = np.delete(np.arange(len(a)), [0, 10])
    expected = match(matcher, a.take(rest), b)
    np.testing.assert_array_equal(found.indices[:, 0], rest[expected.indices[:, 0]])
    np.testing.assert_array_equal(found.indices[:, 1], expected.indices[:, 1])


def test_only_the_best_keypoints_are_matched(weights_file: Path) -> None:
    a, b, _ = sides()
    matcher = build(weights_file, max_keypoints=60)
    found = match(matcher, a, b)
    best = set(np.argsort(-a.scores)[:60].tolist())
    assert len(found) > 10
    assert set(found.indices[:, 0].tolist()) <= best
    chosen = a.take(np.sort(np.argsort(-a.scores, kind="stable")[:60]))
    assert len(match(matcher, chosen, b)) == len(found)


def test_weights_are_needed_and_must_fit(weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs weights without features"):
        generative_graph.build(Config(), "cpu", ())
    with pytest.raises(ConfigError, match=r"no weights for the features of 'aliked', only .* sift"):
        Spec.parse("matchers", "generative_graph", {}, (Spec.parse("extractors", "aliked", {}),))
    own = Spec.parse("matchers", "generative_graph", {}, (Spec.parse("extractors", "sift", {}),))
    assert own.config["weights"] == "generative-graph-open"
    with pytest.raises(ConfigError, match="neither the name of a checkpoint nor a file"):
        Spec.parse("matchers", "generative_graph", {"weights": "generative-graf"}, (SOURCE,))
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"\0" * 100)
    with pytest.raises(WeightsError, match="not weights of generative_graph"):
        build(wrong)
    with pytest.raises(ConfigError, match=r"descriptors of 16 numbers, these have 128"):
        build(weights_file).encode(View(None, features(5, dim=128)))


def test_the_fingerprint_follows_the_content_of_the_weights(
    weights_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights_file.read_bytes())
    specs = [
        Spec.parse("matchers", "generative_graph", {"weights": str(path)}, (SOURCE,))
        for path in (weights_file, copy)
    ]
    assert specs[0].fingerprint == specs[1].fingerprint

"""Graph matching of what other matchers find."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import LightGlue

from sfm_match import weights
from sfm_match.spec import Spec
from sfm_match.types import Features, Matches, View
from tests.matchers.test_graph import as_set, right, scene

SIFT = Spec.parse("extractors", "sift")


def both(name: str, a: Features, b: Features) -> tuple[Matches, Matches]:
    """Return what a matcher finds, and what is left of it."""
    alone = Spec.parse("matchers", name, {}, (SIFT,)).build()
    refined = Spec.parse("matchers", "graph", {"candidates": name}, (SIFT,)).build()
    found = []
    for matcher in (alone, refined):
        encoded = [matcher.encode(View(None, side)) for side in (a, b)]
        found += matcher.match([(encoded[0], encoded[1])])
    return found[0], found[1]


@pytest.mark.parametrize("name", ["nearest", "dual_softmax", "adalam"])
def test_wrong_matches_are_taken_out_and_right_ones_kept(name: str) -> None:
    before, after = both(name, *scene(repeats=2))
    assert as_set(after) <= as_set(before)
    assert right(after) > 0.9 * right(before) > 130
    # Of AdaLAM's matches one is wrong, and stays; of the others' most are.
    wrong_before, wrong_after = len(before) - right(before), len(after) - right(after)
    assert wrong_after <= max(1, 0.2 * wrong_before)


@pytest.fixture
def _lightglue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGlue for SIFT without layers: it matches by the similarity of the descriptors."""
    torch.manual_seed(0)
    network: Any = LightGlue(
        None,  # type: ignore[arg-type]
        weights=None,
        flash=False,
        input_dim=32,
        n_layers=1,
        add_scale_ori=True,
    )
    with torch.no_grad():
        for assignment in network.log_assignment:
            assignment.matchability.weight.zero_()
            assignment.matchability.bias.fill_(5)
            assignment.final_proj.weight.copy_(20 * torch.eye(len(assignment.final_proj.weight)))
            assignment.final_proj.bias.zero_()
        for layer in network.transformers:
            for part in (layer.self_attn, layer.cross_attn):
                part.ffn[-1].weight.zero_()
                part.ffn[-1].bias.zero_()
    path = tmp_path / "lightglue.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(weights, "find", lambda name: path)


@pytest.mark.usefixtures("_lightglue")
def test_what_lightglue_finds_is_checked_too() -> None:
    a, b = (
        dataclasses.replace(
            side,
            scales=np.full(len(side), 3, np.float32),
            orientations=np.zeros(len(side), np.float32),
        )
        for side in scene(repeats=2)
    )
    before, after = both("lightglue", a, b)
    assert right(before) > 100
    assert as_set(after) <= as_set(before)
    assert right(after) > 0.85 * right(before)
    assert right(after) / len(after) > right(before) / len(before) + 0.1


def test_the_weights_of_the_matcher_of_candidates_are_part_of_the_fingerprint() -> None:
    options = {"candidates": "lightglue"}
    specs = [
        Spec.parse("matchers", "graph", options, (Spec.parse("extractors", extractor),))
        for extractor in ("sift", "aliked")
    ]
    names = [spec.config["candidates"] for spec in specs]
    assert names[0] != names[1]
    assert all(name.startswith("lightglue-") for name in names)


@pytest.mark.parametrize("name", ["nearest", "dual_softmax", "adalam"])
def test_few_and_broken_features_have_few_matches(name: str) -> None:
    a, b = scene(200, repeats=1)
    for num in (0, 1, 2, 3):
        few = a.take(np.arange(num))
        for before, after in (both(name, few, b), both(name, b, few)):
            assert as_set(after) <= as_set(before)
            assert len(after) <= num
    broken, rest = a.descriptors.copy(), np.delete(np.arange(len(a)), np.s_[::7])
    broken[::7] = np.nan
    _, expected = both(name, a.take(rest), b)
    matcher = Spec.parse("matchers", "graph", {"candidates": name}, (SIFT,)).build()
    sides = [matcher.encode(View(None, f)) for f in (dataclasses.replace(a, descriptors=broken), b)]
    (found,) = matcher.match([(sides[0], sides[1])])
    assert as_set(found) == {(int(rest[i]), j) for i, j in as_set(expected)}
    assert right(found, 200) > 60

"""Annotated keypoints matched, on Willow's ducks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfm_match.spec import Spec
from sfm_match.stages.match_points import match_points


@pytest.mark.parametrize("solver", ["rrwm", "sm", "ipfp", "ngm-voc", "ngm-willow"])
def test_all_keypoints_of_the_ducks_are_matched_right(solver: str, test_data: Path) -> None:
    ducks = [test_data / "willow" / f"willow_duck_000{i}" for i in (1, 2)]
    images, points = ([Path(f"{duck}{end}") for duck in ducks] for end in (".png", ".mat"))
    name, _, trained_on = solver.partition("-")
    everyone = {"solver": name, "dustbin": 0.0}
    if trained_on:
        everyone["weights"] = solver
    # With their descriptors, and by the geometry of the full graphs alone.
    for options in ({}, {"node_weight": 0.0, "graph": "full"}):
        spec = Spec.parse("matchers", "pygm", everyone | options)
        found = match_points((images[0], images[1]), (points[0], points[1]), spec)
        assert len(found.matches) == 10
        assert found.accuracy == 1.0

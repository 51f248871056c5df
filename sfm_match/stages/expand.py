"""Rounds of matching neighbours of neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sfm_match.stages.pairs import propose_pairs
from sfm_match.stages.verify import verify_digest
from sfm_match.stages.workspace import Workspace
from sfm_match.types import Pair, TwoViewConfig

_NO_LINK = (TwoViewConfig.UNDEFINED, TwoViewConfig.DEGENERATE, TwoViewConfig.WATERMARK)


@dataclass
class ExpandReport:
    """What the expansion did.

    Attributes:
        rounds: how many pairs each round added.
        linked: how many of all these were verified with enough inliers to add others over them.
    """

    rounds: list[int] = field(default_factory=list)
    linked: int = 0


def expand(
    space: Workspace, renew: Callable[[], object], verified: Callable[[], Sequence[Pair]]
) -> ExpandReport:
    """Add neighbours of neighbours to the pairs of `pairs.txt` and write them to a file of theirs.

    It begins at `pairs.txt`, whatever was added before, so that it comes to the same when it is
    done again; what was matched and verified is in the stores.

    Args:
        space: the output folder, where all pairs of `pairs.txt` are verified.
        renew: matches and verifies what `space` lists.
        verified: returns the pairs that are.
    """
    config, report = space.recipe.pairs, ExpandReport()
    with space.lists.adding() as added:
        for _ in range(config.expand):
            inliers = _inliers(space, verified())
            new = propose_pairs(inliers, space.pairs_to_match(), config)
            if not new:
                break
            added.extend(new)
            renew()
            report.rounds.append(len(new))
        new = sorted(set(added) & set(verified()))
        counts = _inliers(space, new).values()
        report.linked = sum(num >= config.expand_inliers for num in counts)
        space.lists.add(added)
    return report


def _inliers(space: Workspace, pairs: Sequence[Pair]) -> dict[Pair, int]:
    """Return the number of inliers of pairs with a geometry."""
    digests, cameras = space.digests(), space.cameras
    entries = [(pair, verify_digest(pair, digests, cameras)) for pair in pairs]
    found: dict[Pair, int] = {}
    for pair, arrays in space.two_views.arrays(entries, columns=("inliers", "config")):
        inliers, config = arrays["inliers"], arrays["config"]
        assert isinstance(pair, Pair)
        assert inliers is not None
        assert config is not None
        if int(config) not in _NO_LINK:
            found[pair] = int(np.count_nonzero(inliers))
    return found

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.spec import ConfigError
from sfm_match.training.patch_batches import Draw, check_pool, different_pairs, draw_batch
from sfm_match.training.patch_pairs import PatchPairs, record_type


def pool_of(counts: list[int], seed: int = 0) -> PatchPairs:
    """Return records whose first pixels are their numbers, at random places."""
    rng = np.random.default_rng(seed)
    num = sum(counts)
    records = np.zeros(num, record_type(8))
    records["pictures"] = np.repeat(np.arange(len(counts)) * 3, counts)
    records["patches"] = 90 + rng.integers(0, 60, (num, 2, 64, 64))
    records["places"] = rng.uniform(0, 200, (num, 2, 2))
    records["sides"] = rng.uniform(10, 100, (num, 2))
    return records


POOL = pool_of([25, 30, 1, 22, 40])
EXACT = Draw(batch=24, together=8, relight=0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 20))
def test_half_of_the_pairs_differ(number: int, size: int, together: int) -> None:
    most = max(together, size // 4 + 1)
    check_pool(POOL, Draw(size, most))
    batch = draw_batch(POOL, Draw(size, most), 5, number)
    assert batch.patches.shape == (2, size, 1, 64, 64)
    assert batch.patches.dtype == torch.float32
    assert 0 <= float(batch.patches.min()) <= float(batch.patches.max()) <= 255
    # One different pair for each of the same.
    assert batch.others.shape == (size,)
    assert batch.different[torch.arange(size), batch.others].all()
    assert not batch.different.diagonal().any()
    assert batch.together.diagonal().all()
    assert int(batch.together.sum(dim=1).max()) <= min(most, size // 2)


def test_batches_follow_from_seed_and_number() -> None:
    first, again = (draw_batch(POOL, Draw(24, 8, 0.2), 3, 7) for _ in range(2))
    for name, value in first._asdict().items():
        assert torch.equal(value, getattr(again, name)), name
    for seed, number in ((3, 8), (4, 7)):
        other = draw_batch(POOL, Draw(24, 8, 0.2), seed, number)
        assert not torch.equal(first.patches, other.patches)


def test_patches_are_whole_or_mirrored_and_partners() -> None:
    batch = draw_batch(POOL, EXACT, 0, 0)
    flipped = 0
    whole = {pair.tobytes(): row for row, pair in enumerate(POOL["patches"])}
    rows = []
    for i in range(EXACT.batch):
        pair = batch.patches[:, i, 0].numpy().astype(np.uint8)
        # SIFT's keypoints have their direction along x, so only y may be turned around.
        mirrored = np.ascontiguousarray(pair[:, ::-1])
        flipped += pair.tobytes() not in whole
        rows.append(whole[pair.tobytes() if pair.tobytes() in whole else mirrored.tobytes()])
    assert len(set(rows)) == EXACT.batch
    assert 5 < flipped < EXACT.batch - 5
    pictures = POOL["pictures"][rows]
    np.testing.assert_array_equal(batch.together, pictures[:, None] == pictures[None])


def test_light_changes_contrast_and_brightness() -> None:
    plain = draw_batch(POOL, EXACT, 0, 0).patches
    relit = draw_batch(POOL, Draw(EXACT.batch, EXACT.together, 0.1), 0, 0).patches
    ratio = (relit.std(dim=(2, 3, 4)) / plain.std(dim=(2, 3, 4))).log()
    assert 0.05 < float(ratio.std()) < 0.2
    moved = relit.mean(dim=(2, 3, 4)) - plain.mean(dim=(2, 3, 4))
    assert 7 < float(moved.std()) < 20
    assert float((ratio[0] - ratio[1]).abs().max()) > 0.05  # each patch by itself


def test_near_keypoints_of_the_same_pictures_do_not_differ() -> None:
    records = pool_of([3, 1])
    first = np.array([[50, 50], [55, 50], [80, 50], [50, 50]])
    records["places"] = np.stack([first, first + 10], axis=1)
    records["sides"] = 64  # those farther apart than 10 pixels differ
    different, together = different_pairs(records)
    np.testing.assert_array_equal(
        different, [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(
        together, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    )
    records["places"][1, 1] = [75, 60]  # in one of the pictures still too near
    assert not different_pairs(records)[0][0, 1]
    records["sides"][1] = 200
    assert not different_pairs(records)[0][1, 2]


def test_a_pool_that_is_too_small_is_named() -> None:
    check_pool(POOL, EXACT)
    with pytest.raises(ConfigError, match="50 pairs of patches of 1 pairs of pictures"):
        check_pool(pool_of([50]), Draw(batch=2 * 50, together=100))
    check_pool(pool_of([1, 1]), Draw(batch=2))
    with pytest.raises(ConfigError, match="too few for a batch of 3"):
        check_pool(pool_of([1, 1]), Draw(batch=3))

"""Words, aggregates and similarities against their definitions; a world with known overlap."""

from __future__ import annotations

import numpy as np
import pytest

from sfm_match.geometry.retrieval import (
    aggregate,
    build_index,
    learn_basis,
    learn_words,
    similarities,
    unit_rows,
    votes,
)
from sfm_match.types import ArrayF32


def random_units(rng: np.random.Generator, num: int, dimensions: int = 16) -> ArrayF32:
    return unit_rows(rng.normal(size=(num, dimensions)))


def test_unit_rows_of_any_type() -> None:
    rows = unit_rows(np.array([[3, 4], [0, 0]], np.float16))
    assert rows.dtype == np.float32
    assert rows[0] == pytest.approx([0.6, 0.8])
    assert rows[1].tolist() == [0, 0]


def test_words_are_the_centres_of_groups_far_apart() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(5, 8)
    sample = (np.repeat(centres, 40, axis=0) + rng.normal(0, 0.1, (200, 8))).astype(np.float32)
    words = learn_words(sample, 5, np.random.default_rng(3))
    # Lloyd may put two words into one group, but every word is the mean of what is nearest to it.
    nearest = np.linalg.norm(sample[:, None] - words, axis=2).argmin(axis=1)
    for word in range(5):
        np.testing.assert_allclose(words[word], sample[nearest == word].mean(axis=0), atol=1e-5)


def test_no_more_words_than_different_samples() -> None:
    sample = np.repeat(np.eye(3, dtype=np.float32), 7, axis=0)
    words = learn_words(sample, 10, np.random.default_rng(0))
    assert sorted(map(tuple, words.tolist())) == sorted(map(tuple, np.eye(3).tolist()))


def test_the_basis_keeps_what_varies() -> None:
    rng = np.random.default_rng(0)
    sample = np.zeros((300, 128), np.float32)
    sample[:, 60:] = rng.normal(size=(300, 68)) * np.linspace(2, 0.01, 68)
    basis = learn_basis(sample)
    assert basis.shape == (128, 64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(64), atol=1e-5)
    kept = np.var(sample @ basis, axis=0).sum() / np.var(sample, axis=0).sum()
    assert kept > 0.999
    assert learn_basis(sample[:, :32]).shape == (32, 32)


def test_an_aggregate_is_the_direction_of_the_sum_of_directions() -> None:
    words = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0]], np.float32)
    descriptors = np.array([[10, 2, 0], [10, 0, 1], [1, 0, 0]], np.float32)
    found = aggregate(descriptors, words)
    assert found.words.tolist() == [0, 1]
    np.testing.assert_allclose(found.sums[0], [1, 0, 0])
    # Both differences count the same, whatever their length.
    np.testing.assert_allclose(found.sums[1], [0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-3)


def test_similarities_are_the_agreement_of_words() -> None:
    rng = np.random.default_rng(1)
    words = random_units(rng, 12)
    sets = [random_units(rng, num) for num in (30, 4, 0, 11, 30)]
    aggregates = [aggregate(rows, words) for rows in sets]
    found = similarities(build_index(aggregates, 12), np.array([0, 1, 2, 4]))
    for row, i in enumerate([0, 1, 2, 4]):
        for j in range(5):
            a, b = aggregates[i], aggregates[j]
            total = 0.0
            for word in set(a.words) & set(b.words):
                u = a.sums[a.words == word][0].astype(float)
                v = b.sums[b.words == word][0].astype(float)
                total += max(0.0, float(u @ v))
            size = np.sqrt(max(len(a.words), 1) * max(len(b.words), 1))
            assert found[row, j] == pytest.approx(total / size, abs=1e-4)
    assert found[0, 0] == pytest.approx(1, abs=2e-3)
    assert not found[2].any()


def test_words_that_disagree_take_nothing_off() -> None:
    words = np.array([[1, 0], [0, 1]], np.float32)
    a = aggregate(np.array([[1, 0.1], [0.1, 1]], np.float32), words)
    b = aggregate(np.array([[1, 0.2], [-0.1, 1]], np.float32), words)
    found = similarities(build_index([a, b], 2), np.array([0]))
    # They agree on the first word wholly, and are opposite on the second.
    assert found[0] == pytest.approx([1, 0.5], abs=1e-3)


def test_votes_are_mutual_and_distinct() -> None:
    rng = np.random.default_rng(2)
    shared = random_units(rng, 20, 128)
    a = np.concatenate([shared, random_units(rng, 30, 128)])
    b = np.concatenate([random_units(rng, 25, 128), shared])
    assert 20 <= votes(a, b) <= 22
    # A descriptor that comes twice is no evidence for either.
    assert votes(shared, np.repeat(shared, 2, axis=0)) == 0
    # Of several that find one and the same, one counts.
    alike = unit_rows(shared[:1] + rng.normal(0, 0.01, (5, 128)))
    assert votes(alike, shared) == 1
    assert votes(shared[:0], b) == votes(a, b[:1]) == 0


def test_images_of_one_place_are_most_alike() -> None:
    """A world of landmarks whose descriptors vary from image to image, in places far apart."""
    rng = np.random.default_rng(3)
    places = [random_units(rng, 100, 32) for _ in range(8)]
    images = []
    for place in places:
        for _ in range(5):
            seen = place[rng.permutation(100)[:50]]
            clutter = random_units(rng, 50, 32)
            noisy = seen + rng.normal(0, 0.4 / 32**0.5, seen.shape)
            images.append(unit_rows(np.concatenate([noisy, clutter])))
    words = learn_words(np.concatenate(images), 64, np.random.default_rng(4))
    index = build_index([aggregate(rows, words) for rows in images], len(words))
    found = similarities(index, np.arange(40))
    np.fill_diagonal(found, 0)
    best = np.argsort(-found, axis=1)[:, :4] // 5
    assert np.mean(best == np.arange(40)[:, None] // 5) > 0.95

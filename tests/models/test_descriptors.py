from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.descriptors import (
    Descriptors,
    comparable,
    distances,
    encode_descriptors,
    k_nearest,
)
from sfm_match.types import ArrayF64


def descriptors(num: int, seed: int, as_bytes: bool) -> ArrayF64:
    values = np.random.default_rng(seed).uniform(size=(num, 64))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return np.round(values * 512) / 512 if as_bytes else values


def encode(values: ArrayF64) -> Descriptors:
    return encode_descriptors(torch.from_numpy(values.astype(np.float32)))


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 4),
    st.sampled_from([1, 7, 64, 256]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_k_nearest_are_those_of_a_full_sort(
    seed: int, num0: int, num1: int, k: int, block_rows: int, as_bytes: bool
) -> None:
    a, b = descriptors(num0, seed, as_bytes), descriptors(num1, seed + 1, as_bytes)
    encoded = encode(a)
    assert (encoded.offsets is not None) == as_bytes
    columns, products = k_nearest(encoded, encode(b), k, block_rows)
    cosines = a @ b.T
    highest = -np.sort(-cosines, axis=1)[:, :k]
    assert columns.shape == (num0, min(k, num1))
    assert all(len(set(row)) == len(row) for row in columns.tolist())
    found = np.take_along_axis(cosines, columns.numpy(), axis=1)
    np.testing.assert_allclose(found, highest, atol=1e-6)
    np.testing.assert_allclose(products.numpy() * encoded.cosine_per_product, highest, atol=1e-6)


def test_of_equal_descriptors_the_first_come_first() -> None:
    row = descriptors(1, 0, as_bytes=True)
    repeated = encode(np.repeat(row, 200, axis=0))
    columns, _ = k_nearest(repeated, repeated, 3)
    assert columns.tolist() == [[0, 1, 2]] * 200


@pytest.mark.parametrize("as_bytes", [(True, False), (False, True)])
def test_bytes_and_floats_are_compared_as_floats(as_bytes: tuple[bool, bool]) -> None:
    a, b = (encode(descriptors(20, 0, one)) for one in as_bytes)
    a, b = comparable(a, b)
    assert a.offsets is None
    assert b.offsets is None
    columns, products = k_nearest(a, b, 1)
    assert columns[:, 0].tolist() == list(range(20))
    assert float(distances(products, a.cosine_per_product).max()) < 0.05

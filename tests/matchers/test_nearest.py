from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.matchers import nearest
from sfm_match.matchers.nearest import Config, match_descriptors
from sfm_match.models import descriptors
from sfm_match.models.descriptors import Descriptors, encode_descriptors
from sfm_match.types import ArrayF64, Matches, View
from tests.described import described

OPTIONS: list[dict[str, Any]] = [
    {},
    {"mutual": False},
    {"ratio": 0.9},
    {"ratio": 0.9, "mutual": False},
    {"max_distance": 0.8},
    {"max_distance": 0.9, "ratio": 0.95, "mutual": False},
    {"max_distance": 0.9, "ratio": 0.95},
]
SIZES = [(1, 1), (1, 70), (70, 1), (2, 3), (63, 65), (64, 64), (128, 128), (200, 333)]


def unit(values: ArrayF64) -> ArrayF64:
    normalised: ArrayF64 = values / np.linalg.norm(values, axis=1, keepdims=True)
    return normalised


def sides(num0: int, num1: int, seed: int = 0, dim: int = 64) -> tuple[ArrayF64, ArrayF64]:
    """Return unit descriptors, half of which are noisy views of the same ones."""
    rng = np.random.default_rng(seed)
    shared = rng.uniform(size=(max(num0, num1), dim))
    noisy = [np.abs(shared + rng.normal(size=shared.shape) * 0.3) for _ in range(2)]
    a, b = noisy[0][:num0], noisy[1][:num1]
    b[::2] = rng.uniform(size=b[::2].shape)
    return unit(a), unit(b[rng.permutation(num1)])


def to_bytes(values: ArrayF64) -> ArrayF64:
    """Return descriptors as SIFT stores them: bytes over 512."""
    return np.round(values * 512).clip(0, 255) / 512


def encode(values: npt.NDArray[Any], *, as_float: bool = False) -> Descriptors:
    encoded = encode_descriptors(torch.from_numpy(values.astype(np.float32)))
    return encoded.as_float() if as_float else encoded


def found(
    a: Descriptors, b: Descriptors, config: Config, block_rows: int = 256
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    indices, cosines = match_descriptors(a, b, config, block_rows)
    return indices.numpy(), cosines.numpy()


def brute_force(cosines: ArrayF64, config: Config) -> npt.NDArray[np.int64]:
    """Match one descriptor after the other, from all cosines (N, M)."""
    distances = np.sqrt(np.clip(2 - 2 * cosines, 0, 4))

    def passes(row: ArrayF64, column: int) -> bool:
        others = np.delete(row, column)
        second = others.min() if len(others) else 2.0
        return config.ratio == 1 or bool(row[column] < config.ratio * second)

    rows = []
    for i, row in enumerate(distances):
        j = int(row.argmin())
        keep = passes(row, j)
        if config.mutual:
            keep &= int(distances[:, j].argmin()) == i and passes(distances[:, j], i)
        if config.max_distance < 2:
            keep &= bool(row[j] < config.max_distance)
        if keep:
            rows.append((i, j))
    return np.array(rows, np.int64).reshape(-1, 2)


# --- against brute force --------------------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("num0", "num1"), SIZES)
@pytest.mark.parametrize("as_bytes", [False, True], ids=["floats", "bytes"])
def test_brute_force_finds_the_same(
    options: dict[str, Any], num0: int, num1: int, as_bytes: bool
) -> None:
    config = Config(**options)
    a, b = sides(num0, num1, seed=num0)
    if as_bytes:
        a, b = to_bytes(a), to_bytes(b)
    encoded = encode(a), encode(b)
    assert (encoded[0].offsets is not None) == as_bytes
    indices, cosines = found(*encoded, config)
    np.testing.assert_array_equal(indices, brute_force(a @ b.T, config))
    np.testing.assert_allclose(cosines, (a @ b.T)[tuple(indices.T)], atol=1e-6)
    if (num0, num1) == (200, 333):
        assert 5 < len(indices) <= 200


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("as_bytes", [False, True], ids=["floats", "bytes"])
def test_the_size_of_the_blocks_does_not_matter(options: dict[str, Any], as_bytes: bool) -> None:
    a, b = sides(150, 190)
    encoded = [encode(to_bytes(side) if as_bytes else side) for side in (a, b)]
    reference = found(encoded[0], encoded[1], Config(**options), 1000)
    assert len(reference[0]) > 5
    for block_rows in (1, 7, 64, 149, 150):
        indices, cosines = found(encoded[0], encoded[1], Config(**options), block_rows)
        np.testing.assert_array_equal(indices, reference[0])
        np.testing.assert_allclose(cosines, reference[1], atol=0 if as_bytes else 1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_integers_and_floats_agree(seed: int, num0: int, num1: int) -> None:
    a, b = (to_bytes(side) for side in sides(num0, num1, seed, dim=128))
    exact, _ = found(encode(a), encode(b), Config())
    rounded, _ = found(encode(a, as_float=True), encode(b, as_float=True), Config())
    # Bytes have a norm of one only up to half a percent, which decides near ties.
    common = {*map(tuple, exact.tolist())} & {*map(tuple, rounded.tolist())}
    assert len(common) >= 0.95 * max(len(exact), len(rounded)) - 2


def directions(*degrees: float) -> ArrayF64:
    angles = np.deg2rad(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def test_the_ratio_test_holds_on_both_sides() -> None:
    # Distances nearly as angles. a0: 5 to b0, 85 to b1; a1: 7 to b0, 80 to b1; b0: 5, then 7.
    a, b = encode(directions(0, 12)), encode(directions(5, 92))
    one_way = Config(ratio=0.6, mutual=False)
    assert found(a, b, one_way)[0].tolist() == [[0, 0], [1, 0]]
    assert found(a, b, Config(ratio=0.6))[0].tolist() == []
    assert found(b, a, Config(ratio=0.6))[0].tolist() == []
    assert found(a, b, Config(ratio=0.8))[0].tolist() == [[0, 0]]
    assert found(b, a, Config(ratio=0.8))[0].tolist() == [[0, 0]]


def test_a_distance_is_that_of_unit_descriptors() -> None:
    angle = np.deg2rad(60)  # a chord of 1
    a, b = np.array([[3.0, 0]]), np.array([[0.1 * np.cos(angle), 0.1 * np.sin(angle)]])
    assert len(found(encode(a), encode(b), Config(max_distance=1.0001))[0]) == 1
    assert len(found(encode(a), encode(b), Config(max_distance=0.9999))[0]) == 0


# --- ties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [False, True], ids=["floats", "bytes"])
@pytest.mark.parametrize("block_rows", [1, 30, 1000])
def test_of_identical_descriptors_the_first_are_matched(as_bytes: bool, block_rows: int) -> None:
    a, _ = sides(90, 1)
    a = to_bytes(a) if as_bytes else a
    repeated = np.concatenate([a, a, a[::-1]])
    indices, _ = found(encode(repeated), encode(repeated), Config(), block_rows)
    assert all(len(set(side)) == len(side) for side in indices.T.tolist())
    original = np.concatenate([np.arange(90), np.arange(90), np.arange(90)[::-1]])
    np.testing.assert_array_equal(*original[indices].T)
    assert set(original[indices[:, 0]]) == set(range(90))
    if as_bytes:  # the rounding of floats depends on the place in the matrix
        np.testing.assert_array_equal(indices, np.column_stack([np.arange(90)] * 2))
        # Every copy has a second nearest neighbour at the same distance.
        ratio = Config(ratio=0.9999)
        assert len(found(encode(repeated), encode(repeated), ratio, block_rows)[0]) == 0


def test_descriptors_of_zeros_match_nothing_better() -> None:
    zeros = encode(np.zeros((3, 16)))
    assert zeros.offsets is None
    _, cosines = found(zeros, zeros, Config())
    np.testing.assert_array_equal(cosines, np.zeros(1))
    assert len(found(zeros, zeros, Config(max_distance=1.4))[0]) == 0


# --- bytes ----------------------------------------------------------------------------------------


def test_only_bytes_of_norm_512_are_matched_as_integers() -> None:
    good = to_bytes(sides(20, 1)[0])
    assert encode(good).values.dtype == torch.int8
    for wrong in (good * 0.5, good + 1e-4, -good, good[:0], np.vstack([good, 0 * good[:1]])):
        encoded = encode(wrong)
        assert encoded.values.dtype == torch.float32
        norms = encoded.values.norm(dim=1)
        assert (((norms - 1).abs() < 1e-6) | (norms == 0)).all()


def test_bytes_and_floats_can_be_matched_with_each_other() -> None:
    a, b = sides(100, 120)
    reference, _ = found(encode(a), encode(b), Config())
    for left, right in ((to_bytes(a), b), (a, to_bytes(b))):
        assert (encode(left).offsets is None) != (encode(right).offsets is None)
        indices, cosines = found(encode(left), encode(right), Config())
        np.testing.assert_array_equal(indices, brute_force(unit(left) @ unit(right).T, Config()))
        assert abs(len(indices) - len(reference)) <= 2
        assert cosines.max() <= 1 + 1e-6


def test_products_of_bytes_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (n, 128)) for n in (33, 65))
    offsets = [torch.from_numpy(128 * x.sum(1) - 64 * 128 * 128).int() for x in (a, b)]
    left, right = (
        Descriptors(torch.from_numpy(x - 128).to(torch.int8), offset)
        for x, offset in zip((a, b), offsets, strict=True)
    )
    out = torch.empty(33, 65, dtype=torch.int32)
    np.testing.assert_array_equal(descriptors.products(left, right, out).numpy(), a @ b.T)


# --- the component --------------------------------------------------------------------------------


def match_one(a: npt.NDArray[Any], b: npt.NDArray[Any], config: Config) -> Matches:
    matcher = nearest.build(config, "cpu", ())
    encoded = [matcher.encode(View(None, described(side, np.float16))) for side in (a, b)]
    (matches,) = matcher.match([(encoded[0], encoded[1])])
    return matches


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("num0", "num1"), [(0, 0), (0, 5), (5, 0)])
def test_an_empty_side_has_no_matches(options: dict[str, Any], num0: int, num1: int) -> None:
    matches = match_one(np.zeros((num0, 16)), np.zeros((num1, 16)), Config(**options))
    assert len(matches) == 0


def test_the_result_of_the_component() -> None:
    a, b = (to_bytes(side) for side in sides(50, 60))
    matches = match_one(a, b, Config(ratio=0.9))
    expected = brute_force(a @ b.T, Config(ratio=0.9))
    np.testing.assert_array_equal(matches.indices, expected)
    np.testing.assert_allclose(matches.scores, (a @ b.T)[tuple(expected.T)], atol=1e-6)


MEASURE = """
import resource
import numpy as np, torch
from sfm_match.matchers.nearest import Config, match_descriptors
from sfm_match.models.descriptors import encode_descriptors
torch.set_num_threads(2)
rng = np.random.default_rng(0)
values = rng.integers(0, 80, (2, 20_000, 128)).astype(np.float32)
values *= 512 / np.linalg.norm(values, axis=2, keepdims=True)
values = values.round().clip(0, 255) / 512 {scale}
a, b = (encode_descriptors(torch.from_numpy(side)) for side in values)
assert (a.offsets is None) == {as_float}
match_descriptors(a[:500], b[:500], Config(ratio=0.8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
match_descriptors(a, b, Config(ratio=0.8))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("as_float", [False, True])
def test_memory_is_bounded(as_float: bool) -> None:
    # All products of 20,000 by 20,000 would be 1.6 GB.
    script = MEASURE.format(scale="+ 1e-5" if as_float else "", as_float=as_float)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert int(done.stdout) < 150e6

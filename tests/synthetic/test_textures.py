import numpy as np
import pytest

from sfm_match.synthetic.textures import (
    canvas,
    collage,
    fractal_noise,
    painting,
    planks,
    plaster,
    tinted,
)
from sfm_match.types import Image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photograph() -> Image:
    return rng(9).integers(0, 256, (30, 50, 3), dtype=np.uint8)


TEXTURES = {
    "plaster": lambda seed: plaster(rng(seed), (96, 160), (180.0, 150.0, 120.0)),
    "planks": lambda seed: planks(rng(seed), (96, 160), (180.0, 150.0, 120.0)),
    "painting": lambda seed: painting(rng(seed), (96, 160)),
    "collage": lambda seed: collage(rng(seed), [photograph()], (96, 160)),
}


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_the_seed_decides_the_texture(name: str) -> None:
    first, again, other = (TEXTURES[name](seed) for seed in (1, 1, 2))
    assert first.shape == (96, 160, 3)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert np.mean(first != other) > 0.5


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_no_texture_repeats_itself(name: str) -> None:
    grey = TEXTURES[name](3).mean(axis=2)
    spectrum = np.fft.rfft2(grey - grey.mean(), s=(192, 320))
    ones = np.abs(np.fft.rfft2(np.ones((96, 160)), s=(192, 320))) ** 2
    overlap = np.fft.irfft2(ones, s=(192, 320))
    likeness = np.fft.irfft2(np.abs(spectrum) ** 2, s=(192, 320)) / grey.var()
    likeness = np.where(overlap > 96 * 160 / 4, likeness / np.maximum(overlap, 1), 0)
    assert likeness[0, 0] == pytest.approx(1.0)
    near = np.zeros_like(likeness, dtype=bool)
    near[:24, :60] = near[-24:, :60] = near[:24, -60:] = near[-24:, -60:] = True
    assert likeness[~near].max() < 0.6


@pytest.mark.parametrize("stretch", [1.0, 4.0])
def test_noise_is_centred_scaled_and_stretched(stretch: float) -> None:
    noise = fractal_noise(rng(), (200, 300), coarsest=16.0, stretch=stretch)
    assert noise.shape == (200, 300)
    assert noise.mean() == pytest.approx(0.0, abs=1e-4)
    assert noise.std() == pytest.approx(1.0, abs=1e-4)
    down, across = np.abs(np.diff(noise, axis=0)).mean(), np.abs(np.diff(noise, axis=1)).mean()
    assert down / across == pytest.approx(stretch, rel=0.35)


def test_plaster_has_the_colour_and_contrast_asked_for() -> None:
    texture = plaster(rng(), (300, 300), (180.0, 150.0, 120.0), contrast=0.05)
    assert texture.mean(axis=(0, 1)) == pytest.approx([180, 150, 120], rel=0.03)
    assert texture[..., 1].std() / 150 == pytest.approx(0.05, rel=0.2)


def test_canvas_enlarges_and_keeps_the_picture() -> None:
    source = photograph()
    large = canvas(rng(), source, factor=3.0, contrast=0.05)
    assert large.shape == (90, 150, 3)
    shrunk = large.reshape(30, 3, 50, 3, 3).mean(axis=(1, 3))
    assert np.corrcoef(shrunk.ravel(), source.ravel())[0, 1] > 0.95
    assert canvas(rng(), source[..., 0], factor=2.0).shape == (60, 100, 3)


def test_tinting_maps_black_and_white_to_the_two_colours() -> None:
    grey = np.array([[0, 255]], dtype=np.uint8)
    assert tinted(grey, (10, 20, 30), (200, 210, 220)).tolist() == [[[10, 20, 30], [200, 210, 220]]]


def test_a_collage_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one photograph"):
        collage(rng(), [], (10, 10))

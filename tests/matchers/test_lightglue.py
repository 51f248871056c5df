"""LightGlue with random weights, against kornia's; none of the published weights are needed."""

from __future__ import annotations

import dataclasses
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import LightGlue

from sfm_match import weights
from sfm_match.matchers import lightglue
from sfm_match.matchers.lightglue import Config
from sfm_match.models.lightglue import load_network
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Features, Matches, View
from sfm_match.weights import WeightsError

NUM = 60
SIZES = (np.array([640, 480], np.int32), np.array([300, 500], np.int32))


def network(**options: Any) -> Any:
    """Return a random network that is confident of some keypoints and not of others."""
    torch.manual_seed(1)
    made: Any = LightGlue(
        None,  # type: ignore[arg-type]
        weights=None,
        flash=False,
        **{"input_dim": 32, "n_layers": 4, **options},
    )
    with torch.no_grad():
        for layer in made.token_confidence:
            layer.token[0].weight.mul_(20)
            layer.token[0].bias.fill_(2)
        for layer in made.log_assignment:
            layer.matchability.weight.mul_(15)
            layer.matchability.bias.fill_(1)
            layer.final_proj.weight.mul_(2)
    return made.eval()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the network was used: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def sides(seed: int = 0, dim: int = 32) -> tuple[Features, Features]:
    """Return features of two images, two thirds of which are the same ones in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(NUM)
    descriptors = rng.normal(size=(NUM, dim))
    others = descriptors[order] + 0.2 * rng.normal(size=(NUM, dim))
    others[::3] = rng.normal(size=others[::3].shape)
    positions = rng.uniform(size=(NUM, 2))
    found = []
    for size, places, values in zip(
        SIZES, (positions, positions[order]), (descriptors, others), strict=True
    ):
        norms = np.linalg.norm(values, axis=1)
        found.append(
            Features(
                keypoints=(places * size).astype(np.float32),
                scores=np.ones(NUM, np.float32),
                descriptors=(values / norms[:, None]).astype(np.float16),
                image_size=size,
                scales=rng.uniform(1, 9, NUM).astype(np.float32),
                orientations=rng.uniform(-3, 3, NUM).astype(np.float32),
            )
        )
    return found[0], found[1]


def save(made: Any, path: Path) -> str:
    torch.save(made.state_dict(), path)
    return str(path)


def match(a: Features, b: Features, inputs: tuple[Spec, ...] = (), **options: Any) -> Matches:
    matcher = lightglue.build(Config(**options), "cpu", inputs)
    encoded = [matcher.encode(View(None, side)) for side in (a, b)]
    (matches,) = matcher.match([(encoded[0], encoded[1])])
    return matches


def kornias(made: Any, a: Features, b: Features, **conf: float) -> tuple[dict[str, Any], Matches]:
    for key, value in conf.items():
        setattr(made.conf, key, value)
    images = (
        {
            "keypoints": torch.from_numpy(side.keypoints)[None],
            "descriptors": torch.from_numpy(side.descriptors).float()[None],
            "image_size": torch.from_numpy(side.image_size)[None],
            "scales": torch.from_numpy(np.asarray(side.scales))[None],
            "oris": torch.from_numpy(np.asarray(side.orientations))[None],
        }
        for side in (a, b)
    )
    with torch.inference_mode():
        out = made(dict(zip(("image0", "image1"), images, strict=True)))
    order = out["matches"][0][:, 0].argsort()
    indices, scores = (out[key][0][order].numpy() for key in ("matches", "scores"))
    return out, Matches(indices.astype(np.int32), scores)


# --- the same as kornia's -------------------------------------------------------------------------

WAYS = [(1.0, 1.0), (0.95, 0.99), (0.5, 0.99), (1.0, 0.5)]


@pytest.mark.parametrize(("depth", "width"), WAYS)
@pytest.mark.parametrize("add_scale_ori", [False, True])
def test_it_is_kornias(tmp_path: Path, depth: float, width: float, add_scale_ori: bool) -> None:
    made = network(add_scale_ori=add_scale_ori)
    path = save(made, tmp_path / "net.pth")
    a, b = sides()
    out, expected = kornias(
        made, a, b, depth_confidence=depth, width_confidence=width, filter_threshold=0.01
    )
    found = match(
        a, b, weights=path, min_score=0.01, depth_confidence=depth, width_confidence=width
    )
    assert len(expected) > 5
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    # It does stop early, and keypoints are left out.
    assert (out["stop"] < 4) == (depth == 0.5)
    if width == 0.5:
        assert out["prune0"].min() < out["prune0"].max()


def test_scales_and_orientations_count_where_the_weights_want_them(tmp_path: Path) -> None:
    a, b = sides()
    assert a.orientations is not None
    turned = dataclasses.replace(a, orientations=a.orientations[::-1].copy())
    for add_scale_ori in (False, True):
        path = save(network(add_scale_ori=add_scale_ori), tmp_path / "net.pth")
        scores = [match(side, b, weights=path, min_score=0).scores.sum() for side in (a, turned)]
        assert (scores[0] != scores[1]) == add_scale_ori


def test_keypoints_are_relative_to_the_size_of_their_image(tmp_path: Path) -> None:
    path = save(network(), tmp_path / "net.pth")
    a, b = sides()
    expected = match(a, b, weights=path, min_score=0)
    found = match(a.resized(a.image_size * 4), b, weights=path, min_score=0)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("options", [{"input_dim": 256}, {"descriptor_dim": 96, "num_heads": 1}])
def test_the_file_says_how_the_network_is_built(options: dict[str, int], tmp_path: Path) -> None:
    made = network(n_layers=3, **options)
    loaded: Any = load_network(save(made, tmp_path / "net.pth"))
    assert not loaded.training
    for key in ("input_dim", "descriptor_dim", "num_heads", "n_layers", "add_scale_ori"):
        assert getattr(loaded.conf, key) == getattr(made.conf, key)


def test_published_files_have_older_names(tmp_path: Path) -> None:
    made = network()
    state = OrderedDict()
    for key, value in made.state_dict().items():
        parts = key.split(".")
        if parts[0] == "transformers":
            parts = [parts[2], parts[1], *parts[3:]]
        if key != "confidence_thresholds":
            state[".".join(parts)] = value
    assert "cross_attn.3.to_qk.weight" in state
    torch.save(state, tmp_path / "old.pth")
    loaded = load_network(tmp_path / "old.pth").state_dict()
    for key, value in made.state_dict().items():
        torch.testing.assert_close(loaded[key], value)


def test_an_empty_side_has_no_matches(tmp_path: Path) -> None:
    path = save(network(add_scale_ori=True), tmp_path / "net.pth")
    a, b = sides()
    empty = a.take(np.arange(0))
    for pair in ((a, empty), (empty, b), (empty, empty)):
        assert len(match(*pair, weights=path, min_score=0)) == 0
    assert len(match(a.take(np.arange(1)), b, weights=path, min_score=0)) <= 1


def test_a_global_setting_of_torch_is_left_alone(tmp_path: Path) -> None:
    enabled: Any = torch.backends.cuda.flash_sdp_enabled
    before = enabled()
    path = save(network(), tmp_path / "net.pth")
    for setting in (False, True, before):
        torch.backends.cuda.enable_flash_sdp(setting)
        load_network(path)
        assert enabled() == setting


# --- which weights --------------------------------------------------------------------------------


def test_the_weights_follow_from_the_extractor() -> None:
    for name in ("aliked", "sift"):
        spec = Spec.parse("matchers", "lightglue", inputs=(Spec.parse("extractors", name),))
        assert spec.config["weights"] == f"lightglue-{name}"
        assert spec.weights == weights.CHECKPOINTS[f"lightglue-{name}"].sha256


def test_weights_that_are_named_are_taken(tmp_path: Path) -> None:
    path = save(network(), tmp_path / "net.pth")
    other = Spec("extractors", "r2d2", 1, {})
    spec = Spec.parse("matchers", "lightglue", {"weights": path}, (other,))
    assert spec.config["weights"] == path
    a, b = sides()
    assert len(match(a, b, (other,), weights=path, min_score=0)) > 5


def test_an_extractor_without_published_weights_is_named() -> None:
    other = Spec("extractors", "r2d2", 1, {})
    message = (
        "no published weights for the features of 'r2d2', only for those of aliked, colmap_sift, "
        "disk, sift"
    )
    with pytest.raises(ConfigError, match=message):
        Spec.parse("matchers", "lightglue", inputs=(other,))
    with pytest.raises(ConfigError, match=message):
        lightglue.build(Config(), "cpu", (other,))
    with pytest.raises(ConfigError, match="which extractor feeds it"):
        lightglue.build(Config(), "cpu", ())


def test_features_that_do_not_fit_the_weights_are_refused(tmp_path: Path) -> None:
    a, b = sides(dim=48)
    path = save(network(), tmp_path / "net.pth")
    with pytest.raises(ConfigError, match=r"descriptors of 32 numbers, these have 48"):
        match(a, b, weights=path)
    path = save(network(input_dim=48, add_scale_ori=True), tmp_path / "net.pth")
    plain = dataclasses.replace(a, scales=None, orientations=None)
    with pytest.raises(ConfigError, match="with scales and orientations, these have none"):
        match(plain, b, weights=path)


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = network().state_dict()
    cases: list[tuple[Any, str]] = [
        ({}, "it has no posenc.Wr.weight"),
        ([1], "it is no state_dict"),
        ({"epoch": 3}, "it is no state_dict"),
        ({k: v for k, v in state.items() if "to_v" not in k}, "to_v.weight"),
    ]
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(WeightsError, match="not a checkpoint of LightGlue") as error:
            load_network(path)
        assert message in str(error.value)
        assert str(path) in str(error.value)
    path.write_bytes(b"no pickle")
    with pytest.raises(WeightsError, match="not a checkpoint of LightGlue"):
        load_network(path)
    affine = network(add_laf=True)
    with pytest.raises(WeightsError, match="affine frames"):
        load_network(save(affine, path))

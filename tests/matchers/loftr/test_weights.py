"""Checkpoints in several layouts, what they decide, and those of something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfm_match import weights
from sfm_match.matchers import loftr
from sfm_match.models.loftr_network import load_network
from sfm_match.spec import ConfigError, Spec
from sfm_match.weights import WeightsError
from tests.loftr_matching import build, everything, pictures, rows_of, run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_sinkhorn_takes_the_score_of_its_dustbins_from_the_checkpoint(
    checkpoints: dict[str, str],
) -> None:
    assert load_network(checkpoints["kornia"])[1] is None
    assert load_network(checkpoints["transport"])[1] == -40
    images, options = pictures(), {"assignment": "sinkhorn", "sinkhorn_iterations": 200}
    trained = run(everything(checkpoints["transport"], **options), *images)
    assert len(trained) > 5
    assert trained.scores.max() <= 1
    # Weights that say nothing start from 1, above what random descriptors can reach.
    assert len(run(everything(checkpoints["kornia"], **options), *images)) == 0


def test_checkpoints_of_something_else(checkpoints: dict[str, str], tmp_path: Path) -> None:
    state = torch.load(checkpoints["plain"], weights_only=True)
    cases = {
        "it has none of backbone.bn1.bias": {
            key: value for key, value in state.items() if key != "backbone.bn1.bias"
        },
        "it has besides depth.head": {**state, "depth.head": torch.zeros(2)},
        r"backbone.conv1.weight \(64, 1, 7, 7\) where it should be \(128, 1, 7, 7\)": {
            **state,
            "backbone.conv1.weight": torch.zeros(64, 1, 7, 7),
        },
        "'step' is not a tensor": {"step": 3},
        "it has no table of tensors": [1, 2],
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(WeightsError, match=f"other.ckpt: not a checkpoint.*{message}"):
            build(str(tmp_path / "other.ckpt"))
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(WeightsError, match=r"text.ckpt: not a checkpoint of LoFTR"):
        build(str(tmp_path / "text.ckpt"))


def test_names_of_weights(checkpoints: dict[str, str]) -> None:
    for short, name in (("outdoor", "loftr-outdoor"), ("indoor_new", "loftr-indoor-new")):
        spec = Spec.parse("matchers", "loftr", {"weights": short})
        assert spec.config["weights"] == name
        assert spec.weights == weights.CHECKPOINTS[name].sha256
    with pytest.raises(ConfigError, match=r"loftr_indoor\.ckpt and give the path of the file"):
        Spec.parse("matchers", "loftr", {"weights": "indoor"})
    with pytest.raises(ConfigError, match="have no fine stage to run in both directions"):
        build(checkpoints["small"], refine="both")


def test_the_corrected_position_encoding_is_that_of_the_newer_indoor_weights(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures()
    original, corrected, auto = (
        run(everything(checkpoints["kornia"], position_encoding=name), *images)
        for name in ("original", "corrected", "auto")
    )
    assert rows_of(auto) == rows_of(original) != rows_of(corrected)
    monkeypatch.setattr(loftr, "_CORRECTED", weights.digest(checkpoints["kornia"]))
    again = build.__wrapped__(checkpoints["kornia"], threshold=0.0, border=1)
    assert rows_of(run(again, *images)) == rows_of(corrected)

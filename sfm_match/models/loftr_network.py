"""Checkpoints of LoFTR -> kornia's network.

Sun, Shen, Wang, Bao, Zhou: "LoFTR: Detector-Free Local Feature Matching with Transformers", CVPR
2021; the small network: Kolodiazhnyi, "Local Feature Matching with Transformers for low-end
devices", arXiv:2202.00770, 2022.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Mapping
from typing import Any, Literal

import torch
from kornia.feature import LoFTR
from kornia.feature.loftr.loftr import default_cfg
from kornia.feature.loftr.utils.position_encoding import PositionEncodingSine
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sfm_match.weights import WeightsError

PositionEncoding = Literal["original", "corrected"]

_PREFIXES = ("module.", "matcher.")  # of training on several GPUs, of the authors' trainer
_BIN_SCORE = "coarse_matching.bin_score"
_FINE_PARTS = ("fine_preprocess.", "loftr_fine.")
_ENCODED_CELLS = (128, 128)  # of images of 1024 pixels; for larger ones the network makes more
_FINE_MAP = "backbone.layer2_outconv2.3.weight"  # of the small network: its last convolution


def network_config(coarse_16: bool = False, fine_width: int = 16) -> dict[str, Any]:
    """Return kornia's configuration of the published network, or of the small coarse one.

    Args:
        coarse_16: whether of the small one.
        fine_width: channels of the small one's fine map and fine stage, a multiple of 8; heads of
            the fine stage have 8 each.
    """
    config: dict[str, Any] = copy.deepcopy(default_cfg)
    if coarse_16:
        config["resolution"] = (16, 4)
        config["resnetfpn"] = {"initial_dim": 8, "block_dims": [8, 16, 32, 32]}
        config["coarse"].update(
            d_model=32, d_ffn=32, nhead=1, layer_names=["self", "cross", "self", "cross"]
        )
        config["fine"].update(d_model=fine_width, nhead=fine_width // 8)
    return config


def new_network(config: dict[str, Any]) -> LoFTR:
    """Return the network of a `network_config`, with random weights.

    kornia's small backbone has as many channels in its fine map as in the layer of this
    resolution; here the fine stage says how many.
    """
    network = LoFTR(pretrained=None, config=config)
    if config["resolution"] == (16, 4):
        before, width = config["resnetfpn"]["block_dims"][2], config["fine"]["d_model"]
        network.backbone.layer2_outconv2[3] = nn.Conv2d(before, width, 3, padding=1, bias=False)
    return network


def load_network(
    path: os.PathLike[str] | str,
    position_encoding: PositionEncoding = "original",
    threshold: float = 0.2,
    border: int = 2,
) -> tuple[LoFTR, float | None]:
    """Return the network of a checkpoint in kornia's or the authors' layout, ready for inference.

    Which of the two architectures it has, and how wide the fine stage of the small one is, is seen
    from its tensors. A checkpoint without a fine stage gives a network without one
    (`has_fine_stage`). Nothing but tensors and plain containers is unpickled. What is stored in
    half precision is read as float32.

    Args:
        path: the checkpoint, safetensors or of torch.
        position_encoding: "original" has the authors' error in the frequencies, with which all
            published weights but the newer indoor ones were trained. No checkpoint says which.
        threshold: smallest score of a match.
        border: how many cells along an image's border are never matched.

    Returns:
        The network, and the score of its dustbins if it was trained with optimal transport.

    Raises:
        WeightsError: the file is no checkpoint, or one of another network; the keys are named.
    """
    state = _read_state(path)
    bin_score = state.pop(_BIN_SCORE, None)
    coarse_16 = any(key.startswith("backbone.layer4.") for key in state)
    config = network_config(coarse_16, _fine_width(state))
    config["coarse"]["temp_bug_fix"] = position_encoding == "corrected"
    config["match_coarse"].update(thr=threshold, border_rm=border)
    # Nothing is made that the checkpoint replaces: random weights would take seconds.
    with torch.device("meta"):
        network = new_network(config)
    network.pos_encoding = PositionEncodingSine(
        config["coarse"]["d_model"], _ENCODED_CELLS, config["coarse"]["temp_bug_fix"]
    )
    has_fine = any(key.startswith(_FINE_PARTS) for key in state)
    if not has_fine:
        del network.fine_preprocess, network.loftr_fine
    _check_keys(path, state, network.state_dict())
    network.load_state_dict(state, assign=True)
    return network.eval(), None if bin_score is None else float(bin_score)


def has_fine_stage(network: LoFTR) -> bool:
    """Whether the network refines its coarse matches."""
    return hasattr(network, "loftr_fine")


def _fine_width(state: Mapping[str, Tensor]) -> int:
    """Return the width that the fine map has, or kornia's where it can be none."""
    fine_map = state.get(_FINE_MAP)
    if fine_map is None or fine_map.ndim == 0 or len(fine_map) % 8 or not len(fine_map):
        return 16
    return len(fine_map)


def _read_state(path: os.PathLike[str] | str) -> dict[str, Tensor]:
    checkpoint: Any
    try:
        if os.fspath(path).endswith(".safetensors"):
            checkpoint = load_file(path)
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = "".join(str(error).splitlines()[:1]) or "it ends too early"
        raise WeightsError(f"{path}: not a checkpoint of LoFTR: {reason}") from error
    if isinstance(checkpoint, Mapping):
        for name in ("state_dict", "model_state_dict"):
            checkpoint = checkpoint.get(name, checkpoint)
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        raise WeightsError(f"{path}: not a checkpoint of LoFTR: it has no table of tensors")
    state: dict[str, Tensor] = {}
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: not a checkpoint of LoFTR: {key!r} is not a tensor")
        for prefix in _PREFIXES:
            key = key.removeprefix(prefix)  # noqa: PLW2901
        state[key] = value.float() if value.is_floating_point() else value
    return state


def _check_keys(
    path: os.PathLike[str] | str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Raise unless the checkpoint has all tensors of the network, and no other."""
    problems = []
    for title, keys in (
        ("has none of", sorted(wanted.keys() - state.keys())),
        ("has besides", sorted(state.keys() - wanted.keys())),
    ):
        if keys:
            problems.append(f"it {title} {_some(keys)}")
    reshaped = [
        f"{key} {tuple(state[key].shape)} where it should be {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    if reshaped:
        problems.append(f"it has {_some(reshaped)}")
    if problems:
        raise WeightsError(
            f"{path}: not a checkpoint of LoFTR as published, nor of the small coarse one: "
            f"{'; '.join(problems)}"
        )


def _some(names: list[str], num: int = 4) -> str:
    more = f" and {len(names) - num} more" if len(names) > num else ""
    return ", ".join(names[:num]) + more

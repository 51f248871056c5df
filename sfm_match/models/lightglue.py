"""LightGlue: Lindenberger, Sarlin, Pollefeys, "LightGlue: Local Feature Matching at Light Speed",
ICCV 2023, with kornia's layers.

What depends on one image alone, up to the first self-attention, is computed once per image. Cross
attention and the assignment are computed without matrices of all pairs, which at 5000 keypoints
would take hundreds of megabytes each.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from kornia.feature import LightGlue
from torch import Tensor
from torch.nn import functional

from sfm_match.models.assignment import mutual_maxima
from sfm_match.weights import WeightsError


@dataclass(frozen=True)
class EncodedImage:
    """The keypoints of an image after the first self-attention.

    Attributes:
        descriptors: float32 (1, N, C).
        encoding: float32 (2, 1, 1, N, C / heads), cosines and sines of their positions.
    """

    descriptors: Tensor
    encoding: Tensor

    def __len__(self) -> int:
        return self.descriptors.shape[1]

    def take(self, rows: Tensor) -> EncodedImage:
        """Return some of the keypoints."""
        return EncodedImage(
            self.descriptors.index_select(1, rows), self.encoding.index_select(3, rows)
        )


def load_network(
    path: os.PathLike[str] | str, depth_confidence: float = 0.95, width_confidence: float = 0.99
) -> LightGlue:
    """Return the network of a checkpoint as its authors publish it, whatever features it is for.

    Nothing but tensors is unpickled, and nothing downloaded.

    Args:
        path: the file.
        depth_confidence: see `match`.
        width_confidence: see `match`.

    Raises:
        WeightsError: the file is no checkpoint, or one of another network.
    """
    state = _renamed(_load(path))
    positions = state.get("posenc.Wr.weight")
    projection = state.get("log_assignment.0.final_proj.weight")
    if positions is None or projection is None:
        raise WeightsError(f"{path}: not a checkpoint of LightGlue: it has no {_MARKS}")
    if positions.shape[1] not in (2, 4):
        raise WeightsError(f"{path}: LightGlue for affine frames of keypoints is not supported")
    channels = len(projection)
    flash = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    network = LightGlue(
        None,  # type: ignore[arg-type]  # as documented: no download
        weights=None,
        input_dim=state["input_proj.weight"].shape[1] if "input_proj.weight" in state else channels,
        descriptor_dim=channels,
        add_scale_ori=positions.shape[1] == 4,
        n_layers=sum(key.endswith("final_proj.weight") for key in state),
        num_heads=channels // (2 * len(positions)),
        flash=False,  # kornia's halves the precision
        depth_confidence=depth_confidence,
        width_confidence=width_confidence,
    )
    torch.backends.cuda.enable_flash_sdp(flash)  # the constructor changes it for the whole process
    # Follows from the number of layers, and is not in the published files.
    state = {"confidence_thresholds": network.get_buffer("confidence_thresholds"), **state}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: not a checkpoint of LightGlue: {error}") from error
    return network.eval()


_MARKS = "posenc.Wr.weight or log_assignment.0.final_proj.weight"


def _load(path: os.PathLike[str] | str) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = "".join(str(error).splitlines()[:1]) or "it ends too early"
        raise WeightsError(f"{path}: not a checkpoint of LightGlue: {reason}") from error
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise WeightsError(f"{path}: not a checkpoint of LightGlue: it is no state_dict")
    return state


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under kornia's names: self_attn.3 was what is transformers.3.self_attn now."""
    return {
        re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", key): value
        for key, value in state.items()
    }


def encode(
    network: LightGlue,
    keypoints: Tensor,
    image_size: Tensor,
    descriptors: Tensor,
    scales_and_orientations: Tensor | None = None,
) -> EncodedImage:
    """Return what `match` needs of an image.

    Args:
        network: the network.
        keypoints: float32 (N, 2), x and y in corner-origin pixels.
        image_size: (2,), width and height.
        descriptors: float32 (N, D).
        scales_and_orientations: float32 (N, 2), in pixels and radians, for networks with
            ``conf.add_scale_ori``; not looked at by others.
    """
    net: Any = network  # kornia's layers have no static types
    size = image_size.to(keypoints)
    positions = (keypoints - size / 2) / (size.max() / 2)
    if net.conf.add_scale_ori:
        assert scales_and_orientations is not None
        positions = torch.cat([positions, scales_and_orientations], dim=1)
    encoding = net.posenc(positions[None])
    projected = net.input_proj(descriptors[None])
    if len(keypoints):
        projected = net.transformers[0].self_attn(projected, encoding)
    return EncodedImage(projected, encoding)


def match(
    network: LightGlue, a: EncodedImage, b: EncodedImage, min_score: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Return the matched keypoints' rows, int64 (M, 2), and their scores (M,), from 0 to 1.

    After each layer but the last, the pair is finished if a share of its keypoints of more than
    `depth_confidence` is confident, and those keypoints are left out that are confident to have no
    match, as the chance that they have one is below 1 - `width_confidence`.

    Args:
        network: the network.
        a: one image.
        b: the other.
        min_score: what the score of a match has to exceed.
    """
    net: Any = network
    rows_a, rows_b = (torch.arange(len(side), device=side.descriptors.device) for side in (a, b))
    num_layers, num_points = len(net.transformers), len(a) + len(b)
    for i, layer in enumerate(net.transformers):
        if len(a) == 0 or len(b) == 0:
            break
        # 1. Self-attention, in the first layer done already: (1, N, C), (1, M, C).
        x, y = a.descriptors, b.descriptors
        if i > 0:
            x, y = layer.self_attn(x, a.encoding), layer.self_attn(y, b.encoding)
        # 2. Cross attention: (1, N, C), (1, M, C).
        x, y = _cross(layer.cross_attn, x, y)
        a, b = EncodedImage(x, a.encoding), EncodedImage(y, b.encoding)
        if i == num_layers - 1:
            break
        # 3. Who is confident: (1, N), (1, M).
        confidence_x, confidence_y = net.token_confidence[i](x, y)
        if net.check_if_stop(confidence_x, confidence_y, i, num_points):
            break
        # 4. Who is left out.
        kept_a = _keep(net, i, x, confidence_x)
        kept_b = _keep(net, i, y, confidence_y)
        a, rows_a = a.take(kept_a), rows_a[kept_a]
        b, rows_b = b.take(kept_b), rows_b[kept_b]
    # 5. Dual softmax, weighted with the chances of both to have a match at all.
    head = net.log_assignment[i]
    x, y = a.descriptors[0], b.descriptors[0]
    scale = x.shape[1] ** -0.25
    chance_x, chance_y = (functional.logsigmoid(head.matchability(side))[:, 0] for side in (x, y))
    found, logs = mutual_maxima(
        head.final_proj(x) * scale, head.final_proj(y) * scale, chance_x, chance_y
    )
    keep = logs.exp() > min_score
    indices = torch.stack([rows_a[found[keep, 0]], rows_b[found[keep, 1]]], dim=1)
    return indices, logs[keep].exp()


def _keep(net: Any, i: int, x: Tensor, confidence: Tensor) -> Tensor:
    """Return the rows (K,) of the keypoints that go on to the next layer."""
    num = x.shape[1]
    if num <= net.pruning_min_kpts(x.device):
        return torch.arange(num, device=x.device)
    chances = net.log_assignment[i].get_matchability(x)
    kept: Tensor = net.get_pruning_mask(confidence, chances, i)[0].nonzero()[:, 0]
    return kept


def _cross(block: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what kornia's cross attention returns, without its matrices of all pairs.

    Args:
        block: the layer.
        x: (1, N, C).
        y: (1, M, C).
    """

    def heads(values: Tensor) -> Tensor:
        return values.view(1, values.shape[1], block.heads, -1).transpose(1, 2)

    # 1. Heads: (1, H, N, C / H), (1, H, M, C / H).
    keys_x, keys_y = heads(block.to_qk(x)), heads(block.to_qk(y))
    values_x, values_y = heads(block.to_v(x)), heads(block.to_v(y))
    # 2. Each asks the other: (1, N, C), (1, M, C).
    from_y = functional.scaled_dot_product_attention(keys_x, keys_y, values_y)
    from_x = functional.scaled_dot_product_attention(keys_y, keys_x, values_x)
    message_x, message_y = (
        block.to_out(message.transpose(1, 2).flatten(2)) for message in (from_y, from_x)
    )
    return (
        x + block.ffn(torch.cat([x, message_x], dim=2)),
        y + block.ffn(torch.cat([y, message_y], dim=2)),
    )

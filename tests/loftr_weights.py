"""Weights of LoFTR that need no training: random ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from kornia.feature import LoFTR

from sfm_match.models.loftr_network import network_config


@cache
def random_network(coarse_16: bool = False) -> LoFTR:
    torch.manual_seed(0)
    config = network_config(coarse_16)
    config["match_coarse"].update(thr=0.0, border_rm=1)
    network = LoFTR(pretrained=None, config=config).eval()
    if coarse_16:
        del network.fine_preprocess, network.loftr_fine
    return network


def save_checkpoints(folder: Path) -> dict[str, str]:
    """Save random weights of both architectures in all layouts; return the files by layout."""
    full, small = random_network().state_dict(), random_network(coarse_16=True).state_dict()
    saved = {
        "kornia": {"state_dict": full},
        "authors": {"state_dict": {f"matcher.{key}": value for key, value in full.items()}},
        "plain": full,
        "small": {"model_state_dict": small, "epoch": 1},
        "transport": {
            "state_dict": {**full, "coarse_matching.bin_score": torch.tensor(-40.0)},
        },
    }
    for name, content in saved.items():
        torch.save(content, folder / f"{name}.ckpt")
    return {name: str(folder / f"{name}.ckpt") for name in saved}

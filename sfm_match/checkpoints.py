"""The published files of weights that can be had by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One published file of weights.

    Attributes:
        name: what options call it.
        url: where its authors publish it.
        sha256: 64 hexadecimal digits, lower case.
        size: in bytes.
        licence: SPDX identifier, or the licence's name.
        commercial: whether the licence allows commercial use.
        paper: authors, title, venue and year.
        filename: its name in the folders that are searched.
    """

    name: str
    url: str
    sha256: str
    size: int
    licence: str
    commercial: bool
    paper: str
    filename: str


def _r2d2(name: str, filename: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        url=f"https://github.com/naver/r2d2/raw/master/models/{filename}",
        sha256=sha256,
        size=size,
        licence="CC-BY-NC-SA-3.0",
        commercial=False,
        paper="Revaud, Weinzaepfel, De Souza, Humenberger: "
        "R2D2: Reliable and Repeatable Detector and Descriptor, NeurIPS 2019",
        filename=filename,
    )


def _loftr(name: str, filename: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        url=f"https://huggingface.co/kornia/loftr/resolve/main/{filename}",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial=True,
        paper="Sun, Shen, Wang, Bao, Zhou: "
        "LoFTR: Detector-Free Local Feature Matching with Transformers, CVPR 2021",
        filename=filename,
    )


def _lightglue(features: str, size: int, sha256: str) -> Checkpoint:
    filename = f"{features}_lightglue.pth"
    return Checkpoint(
        name=f"lightglue-{features}",
        url=f"https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/{filename}",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial=True,
        paper="Lindenberger, Sarlin, Pollefeys: "
        "LightGlue: Local Feature Matching at Light Speed, ICCV 2023",
        filename=filename,
    )


_PUBLISHED = (
    _r2d2(
        "r2d2-wasf-n16",
        "r2d2_WASF_N16.pt",
        1_950_677,
        "9ae90e02a9a133d100ca7aeaa32f4d4d7736a6dd222a530a25c8f7da5e508528",
    ),
    _r2d2(
        "r2d2-wasf-n8-big",
        "r2d2_WASF_N8_big.pt",
        4_171_550,
        "597dc13998e211e827c550bdc8f76dbb4aca32747846f96962c9168586cec418",
    ),
    _r2d2(
        "r2d2-faster-wasf-n16",
        "faster2d2_WASF_N16.pt",
        3_251_102,
        "217daa3a166bfe9bf2b68c05c1607a09dd4d552ae1bbeda885479d504eefc14b",
    ),
    Checkpoint(
        name="aliked-n16",
        url="https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
        sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        size=2_738_091,
        licence="BSD-3-Clause",
        commercial=True,
        paper="Zhao, Wu, Chen, Chen, Xu, Li: ALIKED: A Lighter Keypoint and Descriptor "
        "Extraction Network via Deformable Transformation, IEEE TIM 2023",
        filename="aliked-n16.pth",
    ),
    # Sizes and digests as several projects that use these files have published them.
    _lightglue(
        "aliked",
        47_632_827,
        "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    ),
    _lightglue(
        "disk",
        47_631_405,
        "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
    ),
    _lightglue(
        "sift",
        47_632_573,
        "5b52b8d9982d43532dc042606b346bb9594c9f5a4bd6f64362c63866287b4ac0",
    ),
    _loftr(
        "loftr-outdoor",
        "loftr_outdoor.ckpt",
        46_341_978,
        "21f5bec5968178e8bc8b7633441836fe5de4f47d861dd2cd7dc38e271b0479ec",
    ),
    _loftr(
        "loftr-indoor-new",
        "loftr_indoor_ds_new.ckpt",
        46_355_053,
        "be9ff88b323ec27889114719f668ae41aff7034b56a4c4acbd46b8b180b87ed3",
    ),
    Checkpoint(
        name="coarse-16",
        url="https://github.com/Kolkir/Coarse_LoFTR_TRT/raw/HEAD/weights/LoFTR_teacher.pt",
        sha256="5446241c5713a91c868e0b1b2795c253b3d216b4011b6942fcc6a697fad3c554",
        size=1_759_819,
        licence="Apache-2.0",
        commercial=True,
        paper="Kolodiazhnyi: Local Feature Matching with Transformers for low-end devices, "
        "arXiv:2202.00770, 2022",
        filename="coarse_loftr_teacher.pt",
    ),
)

CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType({c.name: c for c in _PUBLISHED})
"""Every checkpoint that can be had by name."""

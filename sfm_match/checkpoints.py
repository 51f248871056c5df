"""The files of weights that can be had by name: those that are published, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file of weights.

    Attributes:
        name: what options call it.
        url: where its authors publish it; empty for one that comes with this package.
        sha256: 64 hexadecimal digits, lower case; empty where only its MD5 is published.
        size: in bytes; 0 where it is not published.
        licence: SPDX identifier, or the licence's name.
        commercial: whether the licence allows commercial use.
        paper: authors, title, venue and year of the method.
        filename: its name in the folders that are searched.
        md5: 32 hexadecimal digits, lower case, where there is no SHA-256.
    """

    name: str
    url: str
    sha256: str
    size: int
    licence: str
    commercial: bool
    paper: str
    filename: str
    md5: str = ""

    @property
    def digest(self) -> str:
        """What its file is known by: its SHA-256, or ``md5:`` and its MD5."""
        return self.sha256 or f"md5:{self.md5}"

    @property
    def digest_text(self) -> str:
        """Its digest and what kind it is, for people."""
        return f"SHA-256 {self.sha256}" if self.sha256 else f"MD5 {self.md5}"

    @property
    def packaged(self) -> bool:
        """Whether it comes with this package."""
        return not self.url

    @property
    def size_text(self) -> str:
        """Its size, for people."""
        return f"{self.size / 1e6:.1f} MB" if self.size else "of unknown size"


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


def _own(name: str, size: int, sha256: str, paper: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        url="",
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        commercial=True,
        paper=paper,
        filename=f"{name}.safetensors",
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


_GRAPH_MATCHING_PAPERS = {
    "ngm": "Wang, Yan, Yang: Neural Graph Matching Network, TPAMI 2022",
    "pca-gm": "Wang, Yan, Yang: "
    "Learning Combinatorial Embedding Networks for Deep Graph Matching, ICCV 2019",
    "ipca-gm": "Wang, Yan, Yang: Combinatorial Learning of Robust Deep Graph Matching: "
    "an Embedding based Approach, TPAMI 2020",
    "cie": "Yu, Wang, Yan, Li: Learning Deep Graph Matching with Channel-Independent Embedding "
    "and Hungarian Attention, ICLR 2020",
}


def _pygmtools(solver: str, data: str, md5: str, *, size: int = 0, sha256: str = "") -> Checkpoint:
    filename = f"{solver.replace('-', '_')}_{data}_pytorch.pt"
    return Checkpoint(
        name=f"{solver}-{data}",
        url=f"https://huggingface.co/heatingma/pygmtools/resolve/main/{filename}",
        sha256=sha256,
        size=size,
        licence="MulanPSL-2.0",
        commercial=True,
        paper=_GRAPH_MATCHING_PAPERS[solver],
        filename=filename,
        md5=md5,
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
    Checkpoint(
        name="vgg16-bn",
        url="https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
        sha256="6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
        size=553_507_836,
        licence="BSD-3-Clause",
        commercial=True,
        paper="Simonyan, Zisserman: "
        "Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015",
        filename="vgg16_bn-6c64b313.pth",
    ),
    _pygmtools(
        "ngm",
        "voc",
        "60dbc7cc882fd88de4fc9596b7fb0f4a",
        size=23_119,
        sha256="9d341acbd09a22fa3a9a64d3d0a4bc7580ce828738629a182c99b20b9e121164",
    ),
    _pygmtools(
        "ngm",
        "willow",
        "dd13498bb385df07ac8530da87b14cd6",
        size=23_119,
        sha256="38b1815f71bbd0493179fa134b8c8c0864282f1d5e3b77f2440dc5d6c4451369",
    ),
    _pygmtools("pca-gm", "voc", "05924bffc97c9773fda233317c8169d7"),
    _pygmtools("pca-gm", "willow", "db4fe01e9ba1911c1e22f034e2087b7a"),
    _pygmtools("ipca-gm", "voc", "572da07231ea436ba174fde332f2ae6c"),
    _pygmtools("ipca-gm", "willow", "d9febe4f567bf5a93430b42b11ebd302"),
    _pygmtools("cie", "voc", "187916041d9454aecedfd1d09c197f29"),
    _pygmtools("cie", "willow", "47cf8f5176a3d17faed96f30fa14ecf4"),
)

# Trained with this package; their cards are in `weights_data` beside them.
_OWN = (
    _own(
        "r2d2-open",
        972_836,
        "bb5e724e36b3ddbbea5d268427a74b73f76d844269d2f134af3ca8cc1addd9ce",
        "Revaud, Weinzaepfel, De Souza, Humenberger: "
        "R2D2: Repeatable and Reliable Detector and Descriptor, NeurIPS 2019",
    ),
    _own(
        "generative-graph-open",
        126_782,
        "0dd4018fb40ea0fe707e92d6531e9858d44b442036349fc450f3bc3cbf9e2954",
        "this package; the decoder after Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: "
        "End-to-End Object Detection with Transformers, ECCV 2020",
    ),
    _own(
        "coarse-16-fine",
        396_056,
        "aa41d77211da68a0dfabb9a95d07ea6916d0116ad5beaea796e8180959d6fa06",
        "Kolodiazhnyi: Local Feature Matching with Transformers for low-end devices, "
        "arXiv:2202.00770, 2022; its coarse network, with a fine stage of ours",
    ),
    _own(
        "matchnet-open",
        2_062_140,
        "ea8f86c4cb1537c2d3f23034fee9a0c4bc8495b67c2be5688f063b5b487d33e9",
        "Han, Leung, Jia, Sukthankar, Berg: MatchNet: Unifying Feature and Metric Learning for "
        "Patch-Based Matching, CVPR 2015",
    ),
)

CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType({c.name: c for c in (*_OWN, *_PUBLISHED)})
"""Every checkpoint that can be had by name."""

"""The benchmarks by name, each with its reader and the protocols that were published for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sfm_match.benchmarks import hpatches, listed, scenes
from sfm_match.benchmarks.datasets import HomographySet, PoseSet
from sfm_match.benchmarks.settings import HomographyConfig, PairConfig, SceneConfig
from sfm_match.spec import ConfigError, nearest, parse_config

Config = PairConfig | SceneConfig | HomographyConfig


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        read: reads its data: the root, the index's folder or None, the settings, the scenes.
        config: its settings.
        protocols: settings that were published, by name; the first is the default.
    """

    read: Callable[..., PoseSet | HomographySet]
    config: type[Config]
    protocols: Mapping[str, Mapping[str, Any]]


BENCHMARKS: Mapping[str, Benchmark] = {
    "megadepth-1500": Benchmark(listed.read_megadepth, PairConfig, listed.MEGADEPTH_PROTOCOLS),
    "scannet-1500": Benchmark(listed.read_scannet, PairConfig, listed.SCANNET_PROTOCOLS),
    "hpatches": Benchmark(hpatches.read_hpatches, HomographyConfig, hpatches.PROTOCOLS),
    "phototourism": Benchmark(scenes.read_phototourism, SceneConfig, scenes.IMC_PROTOCOLS),
    "eth3d": Benchmark(scenes.read_eth3d, SceneConfig, scenes.ETH3D_PROTOCOLS),
    "strecha": Benchmark(scenes.read_strecha, SceneConfig, scenes.STRECHA_PROTOCOLS),
    "colmap": Benchmark(scenes.read_colmap, SceneConfig, scenes.COLMAP_PROTOCOLS),
}
"""The benchmarks by name."""


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark named {name!r}; {nearest(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def protocol_of(name: str, protocol: str, options: Mapping[str, Any]) -> tuple[str, Config]:
    """Return the name and the settings of a protocol, some of them changed.

    Args:
        name: of the benchmark.
        protocol: its name; empty for the benchmark's first.
        options: settings that differ from the protocol's.

    Raises:
        ConfigError: there is no such benchmark, protocol or option, or an option is wrong.
    """
    benchmark = find_benchmark(name)
    protocol = protocol or next(iter(benchmark.protocols))
    if protocol not in benchmark.protocols:
        known = nearest(protocol, benchmark.protocols)
        raise ConfigError(f"{name} has no protocol named {protocol!r}; {known}")
    merged = {**benchmark.protocols[protocol], **options}
    config: Config = parse_config(benchmark.config, merged, name)
    if isinstance(config, SceneConfig) and len(config.subset_sizes) != len(config.subset_counts):
        raise ConfigError(
            f"{name}.subset_counts: must be one number for each of subset_sizes = "
            f"{list(config.subset_sizes)}, got {list(config.subset_counts)}"
        )
    return protocol, config

"""Rules of resizing, and the protocols' settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.benchmarks.catalogue import BENCHMARKS, protocol_of
from sfm_match.benchmarks.resizing import parse_resize
from sfm_match.benchmarks.settings import HomographyConfig, PairConfig
from sfm_match.spec import ConfigError


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        ("none", (1601, 1199), (1601, 1199)),
        ("none/16", (1601, 1199), (1600, 1184)),
        ("640x480", (1296, 968), (640, 480)),
        ("long-840/8", (1600, 1199), (840, 624)),  # 629.475 -> 629 -> 78 x 8
        ("long-840/8", (500, 1000), (416, 840)),
        ("long-1600", (800, 600), (1600, 1200)),
        ("short-480", (1000, 800), (600, 480)),
        ("max-1600", (6048, 4032), (1600, 1067)),
        ("max-1600", (1200, 900), (1200, 900)),
    ],
)
def test_rules(rule: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert parse_resize(rule)(size) == expected


@given(
    st.integers(1, 9000), st.integers(1, 9000), st.sampled_from(["long-840/8", "short-480", "none"])
)
def test_no_side_is_zero(width: int, height: int, rule: str) -> None:
    assert min(parse_resize(rule)((width, height))) >= 1


@pytest.mark.parametrize("rule", ["", "840", "long-0", "long840", "640x", "none/0", "max-1600/x"])
def test_wrong_rules(rule: str) -> None:
    with pytest.raises(ConfigError, match=f"resize: no rule '{rule}'; one is none, 640x480"):
        parse_resize(rule)


def test_the_settings_that_were_published() -> None:
    name, config = protocol_of("megadepth-1500", "", {})
    assert isinstance(config, PairConfig)
    assert (name, config.resize, config.estimators) == ("loftr", "long-840/8", ("opencv",))
    assert (config.thresholds, config.max_epipolar_error) == ((0.5,), 1e-4)
    _, config = protocol_of("scannet-1500", "superglue", {"estimators": ["poselib"]})
    assert isinstance(config, PairConfig)
    assert (config.resize, config.thresholds, config.estimators) == (
        "640x480",
        (1.0,),
        ("poselib",),
    )
    _, config = protocol_of("hpatches", "lightglue", {})
    assert isinstance(config, HomographyConfig)
    assert (config.resize, config.auc) == ("short-480", (1, 3, 5))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_protocol_has_settings_that_exist(name: str) -> None:
    for protocol in BENCHMARKS[name].protocols:
        _, config = protocol_of(name, protocol, {})
        parse_resize(config.resize)


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="no benchmark named 'megadepth'; did you mean 'megade"):
        protocol_of("megadepth", "", {})
    with pytest.raises(ConfigError, match="has no protocol named 'lofter'; did you mean 'loftr'"):
        protocol_of("scannet-1500", "lofter", {})
    with pytest.raises(ConfigError, match=r"hpatches\.tolerances: no such option"):
        protocol_of("hpatches", "", {"tolerances": [1]})
    with pytest.raises(ConfigError, match=r"colmap\.subset_counts: must be one number for each"):
        protocol_of("colmap", "", {"subset_sizes": [3]})

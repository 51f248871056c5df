"""Which pairs each method makes."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.io.pairs import write_pairs
from sfm_match.spec import ConfigError, parse_config
from sfm_match.stages.pairs import Choice, Config, ImageSet
from sfm_match.stages.pairs import make_pairs as make_pairs_of
from sfm_match.types import Pair

names = st.sets(st.text("ab/_0129", min_size=1, max_size=6), max_size=12).map(sorted)


def make_pairs(images: Sequence[str], config: Config) -> Choice:
    return make_pairs_of(ImageSet(images), config)


def sequential(overlap: int, quadratic: bool) -> Config:
    return Config(method="sequential", overlap=overlap, quadratic=quadratic)


@given(names)
def test_exhaustive_is_every_pair_once(images: Sequence[str]) -> None:
    found = make_pairs(images[::-1], Config())
    assert found.problems == []
    assert len(found.pairs) == len(images) * (len(images) - 1) // 2
    assert set(found.pairs) == {Pair(a, b) for a in images for b in images if a < b}


def test_exhaustive_pairs_of_a_thousand_images_take_less_than_two_seconds() -> None:
    start = time.process_time()
    pairs = make_pairs([f"{i}.jpg" for i in range(1000)], Config()).pairs
    assert time.process_time() - start < 2
    assert len(pairs) == 499_500


def test_sequential_counts_in_numbers() -> None:
    images = ["img10.jpg", "img1.jpg", "img2.jpg", "img9.jpg", "img100.jpg"]
    assert make_pairs(images, sequential(1, quadratic=False)).pairs == [
        Pair.of("img1.jpg", "img2.jpg"),
        Pair.of("img2.jpg", "img9.jpg"),
        Pair.of("img9.jpg", "img10.jpg"),
        Pair.of("img10.jpg", "img100.jpg"),
    ]


def test_sequential_order_with_folders_and_several_numbers() -> None:
    ordered = ["cam1/f2_1.jpg", "cam1/f2_12.jpg", "cam1/f10_3.jpg", "cam2/f1_1.jpg", "cam10/f0.jpg"]
    assert make_pairs(sorted(ordered), sequential(1, quadratic=False)).pairs == [
        Pair.of(a, b) for a, b in pairwise(ordered)
    ]


def test_numbers_that_differ_in_zeros_only_are_different_images() -> None:
    found = make_pairs(["7.jpg", "007.jpg", "07.jpg"], sequential(1, quadratic=False))
    assert found.pairs == [Pair("007.jpg", "07.jpg"), Pair("07.jpg", "7.jpg")]


@given(st.integers(0, 40), st.integers(1, 50), st.booleans())
def test_sequential_distances(num: int, overlap: int, quadratic: bool) -> None:
    images = [f"{i}.jpg" for i in range(num)]
    pairs = make_pairs(images, sequential(overlap, quadratic)).pairs
    distances = {abs(images.index(pair.a) - images.index(pair.b)) for pair in pairs}
    expected = set(range(1, overlap + 1))
    if quadratic:
        expected |= {2**i for i in range(overlap)}
    assert distances == {d for d in expected if d < num}
    assert len(set(pairs)) == len(pairs) == sum(num - d for d in distances)


@pytest.mark.parametrize(("num", "overlap"), [(1, 3), (8, 2), (40, 3), (40, 5), (100, 10)])
def test_sequential_agrees_with_colmap(num: int, overlap: int) -> None:
    # COLMAP 4 takes either the near ones or the powers of two, we take both.
    images = [f"{i:03d}.jpg" for i in range(num)]
    near = colmap_pairs(images, overlap, quadratic=False)
    assert set(make_pairs(images, sequential(overlap, quadratic=False)).pairs) == near
    powers = colmap_pairs(images, overlap, quadratic=True)
    assert set(make_pairs(images, sequential(overlap, quadratic=True)).pairs) == near | powers


def colmap_pairs(images: Sequence[str], overlap: int, *, quadratic: bool) -> set[Pair]:
    camera = pycolmap.Camera(model="PINHOLE", width=10, height=10, params=[9, 9, 5, 5], camera_id=1)
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(camera.sensor_id)
    with pycolmap.Database.open(":memory:") as database:
        database.write_camera(camera, use_camera_id=True)
        database.write_rig(rig, use_rig_id=True)
        for number, name in enumerate(images, start=1):
            image = pycolmap.Image(name=name, camera_id=1, image_id=number)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=number, rig_id=1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
        options = pycolmap.SequentialPairingOptions(overlap=overlap, quadratic_overlap=quadratic)
        ids = pycolmap.SequentialPairGenerator(options, database).all_pairs()
    return {Pair.of(images[a - 1], images[b - 1]) for a, b in ids}


def test_a_huge_overlap_is_every_pair() -> None:
    images = [f"{i}.jpg" for i in range(9)]
    everything = set(make_pairs(images, Config()).pairs)
    assert set(make_pairs(images, sequential(10**15, quadratic=True)).pairs) == everything


def test_pairs_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [Pair("a b.jpg", "c.jpg"), Pair("c.jpg", "d.jpg")])
    found = make_pairs(["a b.jpg", "c.jpg"], Config(method="file", path=path))
    assert found.pairs == [Pair("a b.jpg", "c.jpg")]
    assert found.problems == [
        "line 2: 'c.jpg d.jpg': no image named 'd.jpg', did you mean 'c.jpg'?"
    ]


AWKWARD = [
    "-dash.jpg",
    "a b.jpg",
    "a/b.jpg",
    "a-b.jpg",
    "100 %.JPG",
    "\u00fcml\u00e4ut \u6771\u4eac.png",
    '"q".jpg',
    "#1.jpg",
]


@given(st.sets(st.sampled_from(AWKWARD), min_size=2))
def test_any_names_go_through_a_file(
    tmp_path_factory: pytest.TempPathFactory, images: set[str]
) -> None:
    path = tmp_path_factory.mktemp("pairs") / "list.txt"
    everything = make_pairs(sorted(images), Config())
    write_pairs(path, everything.pairs)
    again = make_pairs(sorted(images), Config(method="file", path=path))
    assert (again.pairs, again.problems) == (everything.pairs, [])


def test_hlocs_plain_form_with_spaces_and_unicode(tmp_path: Path) -> None:
    path = tmp_path / "hloc.txt"
    path.write_text(
        "a b.jpg \u00fcml\u00e4ut \u6771\u4eac.png\n-dash.jpg a/b.jpg\n100 %.JPG a b.jpg",
        encoding="utf-8",
    )
    found = make_pairs(AWKWARD, Config(method="file", path=path))
    assert found.problems == []
    assert found.pairs == [
        Pair.of("a b.jpg", "\u00fcml\u00e4ut \u6771\u4eac.png"),
        Pair.of("-dash.jpg", "a/b.jpg"),
        Pair.of("100 %.JPG", "a b.jpg"),
    ]


def test_a_file_without_a_path_says_what_to_pass() -> None:
    with pytest.raises(ConfigError, match=re.escape("-o pairs.path=FILE or --pairs FILE")):
        make_pairs(["a", "b"], Config(method="file"))


@pytest.mark.parametrize("method", ["exhaustive", "sequential"])
def test_a_path_that_would_not_be_read_is_refused(method: str) -> None:
    config = parse_config(Config, {"method": method, "path": "list.txt"}, "pairs")
    with pytest.raises(ConfigError, match=f"the method '{method}' reads no list"):
        make_pairs(["a", "b"], config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "all"}, "pairs.method: no method named 'all'; "),
        (
            {"method": "sequential+retreival"},
            "pairs.method: no method named 'retreival'; did you mean 'retrieval' or ",
        ),
        (
            {"method": "file+"},
            "pairs.method: no method named ''; have covisibility, exhaustive, file, ",
        ),
        ({"method": "file + file"}, "pairs.method: names a method twice"),
        ({"overlap": 0}, "pairs.overlap: Input should be greater than 0"),
        ({"overlaps": 5}, "pairs.overlaps: no such option; did you mean 'overlap'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(Config, options, "pairs")

"""The report as a browser shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome

from sfm_match.report.material import gather
from sfm_match.report.write import write_report
from tests.report.browser import PHONE, browser, errors, open_page, wait
from tests.report.made import make_out

MARKUP = "<img src=x onerror=document.title='hacked'>.jpg"
NAMES = sorted([f"{i:02}.jpg" for i in range(10)] + [MARKUP])

# Where a camera lies, from the middle of the scene: plotly's own matrices, applied as it does.
_PLACE = """
const [row] = arguments, scene = document.getElementById("scene");
const box = scene.getBoundingClientRect(), trace = scene.data[2];
const { model, view, projection } = scene._fullLayout.scene._scene.glplot.cameraParams;
const scale = scene._fullLayout.scene._scene.dataScale;
const four = [0, 1, 2, 3];
const times = (m, v) => four.map((i) => four.reduce((s, k) => s + m[4 * k + i] * v[k], 0));
let v = [trace.x[row] * scale[0], trace.y[row] * scale[1], trace.z[row] * scale[2], 1];
for (const matrix of [model, view, projection]) v = times(matrix, v);
return [box.width * v[0] / v[3] / 2, -box.height * v[1] / v[3] / 2];
"""
# Pixels of the scene that are not of the background, read from WebGL as it draws.
_PIXELS = """
const done = arguments[0], size = { format: "png", width: 300, height: 200 };
Plotly.toImage(document.getElementById("scene"), size).then((url) => {
  const image = new Image();
  image.onload = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 300, height: 200 });
    const draw = canvas.getContext("2d");
    draw.drawImage(image, 0, 0);
    const { data } = draw.getImageData(0, 0, 300, 200);
    let count = 0;
    for (let i = 3; i < data.length; i += 4) count += data[i] > 0 && data[i - 3] > data[i - 1] + 40;
    done(count);
  };
  image.src = url;
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of eleven images, one of which has a name that is markup."""
    folder = tmp_path_factory.mktemp("page")
    material = gather(make_out(folder, NAMES), truth=folder / "truth")
    return write_report(material, folder / "report.html", 1).path


@pytest.fixture(scope="module")
def chrome(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser that shows it."""
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        open_page(opened, page)
        yield opened


def test_the_page_shows_the_model_without_errors_and_loads_nothing(chrome: Chrome) -> None:
    assert errors(chrome) == []
    assert chrome.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert chrome.execute_async_script(_PIXELS) > 200  # of the points, which are orange


def test_a_name_that_is_markup_is_only_a_name(chrome: Chrome) -> None:
    assert chrome.title != "hacked"
    row = NAMES.index(MARKUP)
    chrome.execute_script("document.querySelectorAll('[data-pick]')[arguments[0]].click()", row)
    assert chrome.find_element("id", "picked").text == MARKUP
    assert chrome.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert chrome.title != "hacked"


def test_a_click_on_a_camera_shows_its_picture(chrome: Chrome) -> None:
    chrome.execute_script("document.getElementById('scene').scrollIntoView({behavior: 'instant'})")
    row = 4
    x, y = chrome.execute_script(_PLACE, row)
    scene = chrome.find_element("id", "scene")
    ActionChains(chrome).move_to_element_with_offset(scene, round(x), round(y)).click().perform()
    shown = "document.querySelector('#picked img')?.alt"
    wait(chrome, f"return {shown} === '{NAMES[row]}'", seconds=10)


def test_the_picture_opens_by_keyboard_with_its_keypoints(chrome: Chrome) -> None:
    chrome.execute_script("document.querySelector('[data-pick]').focus()")
    ActionChains(chrome).send_keys("\ue007").perform()  # Enter
    chrome.execute_script("document.querySelector('#picked button').focus()")
    ActionChains(chrome).send_keys("\ue007").perform()
    wait(chrome, "return document.getElementById('keypoints').width > 100")
    assert chrome.find_element("id", "viewer-name").text == NAMES[0]
    drawn = """const c = document.getElementById("keypoints");
    const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
    return data.some((v, i) => i % 4 === 3 && v > 0);"""
    assert chrome.execute_script(drawn)
    ActionChains(chrome).send_keys("\ue014").perform()  # to the right
    assert chrome.find_element("id", "viewer-name").text == NAMES[1]
    ActionChains(chrome).send_keys("\ue00c").perform()  # Escape
    assert not chrome.execute_script("return document.getElementById('viewer').open")


def test_arrow_keys_turn_the_model(chrome: Chrome) -> None:
    eye = "return document.getElementById('scene').layout.scene.camera.eye.x"
    before = chrome.execute_script(eye)
    chrome.execute_script("document.getElementById('scene').focus()")
    ActionChains(chrome).send_keys("\ue014").perform()
    wait(chrome, f"{eye} !== {before}")


def test_the_table_sorts_by_a_column(chrome: Chrome) -> None:
    chrome.execute_script("document.querySelector('[data-sort=\"4\"]').click()")
    cells = chrome.find_elements("css selector", "#table tbody td:nth-child(5)")
    points = [int(str(cell.get_attribute("textContent")).replace(",", "")) for cell in cells]
    assert points == sorted(points, reverse=True)
    assert len(set(points)) > 1


@pytest.mark.slow
def test_a_thousand_images_on_a_telephone(tmp_path: Path) -> None:
    names = [f"folder {i // 100}/DSC_{i:05}.jpg" for i in range(1000)]
    out = make_out(tmp_path, names, num_points=30_000, size=(1024, 768))
    written = write_report(gather(out, truth=tmp_path / "truth"), tmp_path / "report.html", 1)
    assert written.bytes < 10e6
    with browser(tmp_path / "profile", PHONE, dark=True) as chrome:
        open_page(chrome, written.path, seconds=300)
        assert errors(chrome) == []
        # Nothing is wider than the screen, and only pictures near the view are there.
        assert chrome.execute_script("return document.documentElement.scrollWidth") == PHONE[0]
        assert chrome.execute_script("return document.querySelectorAll('img').length") < 50
        assert (
            chrome.execute_script("return document.querySelectorAll('[data-pick]').length") == 1000
        )

"""Makes the pictures of the README from a finished run, with the Chromium of the system.

sfm-match run datasets/gallery/images demo --truth datasets/gallery/gt
python datasets/make_pictures.py demo docs/pictures
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from sfm_match.cli import main

SIZE = (1280, 1160)
COLOURS = 200
WEAK = 2
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)


def write_report(out: Path, path: Path) -> None:
    sys.argv = ["sfm-match", "report", str(out), "--to", str(path)]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def open_report(path: Path, profile: str) -> Chrome:
    options = Options()
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}", "--window-size=1280,1160"):
        options.add_argument(flag)
    options.binary_location = str(shutil.which("chromium"))
    chrome = Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    width, height = SIZE
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chrome.get(path.absolute().as_uri())
    while not chrome.execute_script("return document.getElementById('scene').dataset.ready"):
        time.sleep(0.2)
    return chrome


def save(png: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


def make_pictures(out: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_report(out, path)
        chrome = open_report(path, f"{folder}/profile")
        try:
            chrome.execute_script("document.querySelectorAll('[data-pick]')[3].click()")
            time.sleep(3)
            save(chrome.get_screenshot_as_png(), to / "report.png")
            # Of the weakest pairs: on the best one, lines hide the photographs.
            pair = chrome.find_elements("css selector", ".pair")[WEAK]
            alone = "arguments[0].parentElement.style.gridTemplateColumns = '1000px'"
            chrome.execute_script(alone, pair)
            chrome.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", pair)
            time.sleep(3)
            drawing = pair.find_element("css selector", ".drawing")
            save(drawing.screenshot_as_png, to / "matches.png")
        finally:
            chrome.quit()


if __name__ == "__main__":
    make_pictures(Path(sys.argv[1]), Path(sys.argv[2]))

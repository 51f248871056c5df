"""A headless Chromium, where there is one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
)
PHONE, LAPTOP = (390, 844), (1366, 768)


@contextmanager
def browser(profile: Path, size: tuple[int, int] = LAPTOP, dark: bool = False) -> Iterator[Chrome]:
    """Start a browser; skip where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = Options()
    options.binary_location = program
    for flag in (*_FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        width, height = size
        metrics = {
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": size == PHONE,
        }
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield chrome
    finally:
        chrome.quit()


def open_page(chrome: Chrome, path: Path, seconds: float = 90) -> None:
    """Open a report and wait until its model is drawn."""
    chrome.get(path.absolute().as_uri())
    wait(chrome, "return document.getElementById('scene').dataset.ready === 'yes'", seconds)


def wait(chrome: Chrome, condition: str, seconds: float = 60) -> None:
    """Wait until a program returns what is true."""
    end = time.monotonic() + seconds
    while not chrome.execute_script(condition):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.1)


def errors(chrome: Chrome) -> list[str]:
    """Return the errors that the console shows."""
    entries = chrome.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

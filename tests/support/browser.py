"""A real browser without a window, for the tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "google-chrome-stable")
ON_MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


@contextmanager
def browser() -> Iterator:
    """Chromium or Chrome, as it is installed, driven by Playwright; skips the test where one of the two is missing."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None) or (str(ON_MACOS) if ON_MACOS.exists() else None)
    if found is None:
        pytest.skip("needs a browser: install Chrome, or Chromium (Debian: apt-get install chromium-headless-shell)")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LD_PRELOAD", raising=False)  # OpenBLAS, with which it does not start
        playwright = driver.sync_playwright().start()
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
    yield chromium
    chromium.close()
    playwright.stop()

"""A browser for the tests of the dashboard."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


# Not of the session: until Playwright ends, an event loop runs in this thread, and asyncio.run() fails in whatever
# file of tests comes next in the same process.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, which is Debian's where it is installed."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium; `make test` installs it on Debian")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()

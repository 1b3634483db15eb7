"""A headless Chromium, for tests that drive pages as a person does."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IS_REQUIRED = os.environ.get("CALLBOARD_BROWSER") == "required"
SCREENSHOTS = ROOT / "ci-output" / "screenshots"
WAIT_MS = 20_000
"""For a page on a busy machine; an idle one takes two seconds."""

IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not IS_REQUIRED, reason="no Chromium; CALLBOARD_BROWSER=required insists on one"
    ),
]
"""Marks of a module whose tests need one."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start it, until the block ends."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CALLBOARD_BROWSER=required, and there is no chromium on the path"
    with sync_playwright() as playwright:
        # containers have no user namespaces for Chromium's sandbox, and small /dev/shm
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()

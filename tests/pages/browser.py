"""A headless Chromium for tests, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 120_000
"""Milliseconds that the browser may take for one step on a machine that does other things."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def browsing(
    width: int = 1280, scheme: str = "light", microphone: Path | None = None
) -> Iterator[tuple[Page, list[str]]]:
    """A page of a browser, and what went wrong in it: errors, and whatever was fetched from elsewhere.

    Args:
        width: Of the page, in pixels.
        scheme: ``light`` or ``dark``.
        microphone: A wav file that the microphone hears, over and over; None has none.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"there is no browser: {', '.join(NAMES)} are not on the path")
    arguments = ["--autoplay-policy=no-user-gesture-required"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # it refuses to be started by root otherwise
    if microphone is not None:
        arguments += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        page.set_default_timeout(PATIENCE)
        faults: list[str] = []

        def requested(request: object) -> None:
            url = str(getattr(request, "url", ""))
            if not url.startswith(("data:", "file:", "blob:", "http://127.0.0.1:")):
                faults.append(f"fetched {url[:80]}")

        page.on("pageerror", lambda error: faults.append(str(error)[:200]))
        page.on("console", lambda said: faults.append(said.text[:200]) if said.type == "error" else None)
        page.on("request", requested)
        try:
            yield page, faults
        finally:
            browser.close()

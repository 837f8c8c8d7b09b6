"""A real JupyterLab session and Debian's chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_session import RunningLab, Traffic, end, start_lab, watch
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, sample_run: Path) -> Iterator[RunningLab]:
    """A session on a copy of the sample batch."""
    home = tmp_path_factory.mktemp("lab")
    run_dir = Path(shutil.copytree(sample_run, home / "run"))
    process, url = start_lab("--batch", str(run_dir), home=home)
    try:
        yield RunningLab(process=process, url=url, workspace=home / "workspace", run_dir=run_dir)
    finally:
        assert end(process) == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: make test installs it where it may")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with_size = browser.new_context(viewport={"width": 1440, "height": 940}, device_scale_factor=1)
    yield with_size
    with_size.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def traffic(page: Page) -> Traffic:
    """What `page` asks for and what fails on it, from its first request on."""
    return watch(page)

"""The dev session as a user sees it: open the printed address, run the tutorial to its end."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from lab_session import RunningLab, Traffic
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "tests" / "artifacts"
README_IMAGES = ROOT / "docs" / "images"
RUN_TIMEOUT_S = 180.0


def screenshot(page: Page, name: str) -> None:
    """Take the picture that a person should look at; KAAPANA_NB_README_IMAGE=1 also makes it the README's."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / name)
    if os.environ.get("KAAPANA_NB_README_IMAGE"):
        README_IMAGES.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ARTIFACTS / name, README_IMAGES / name)


def wait_until_idle(page: Page, timeout: float = 60_000) -> None:
    """Wait until the status bar says that the kernel is there and does nothing."""
    expect(page.locator("#jp-main-statusbar").get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=timeout)


def open_tutorial(page: Page, lab: RunningLab) -> None:
    page.goto(lab.url)
    expect(page.locator(".jp-NotebookPanel .jp-Cell").first).to_be_visible(timeout=60_000)
    wait_until_idle(page)


def run_all(page: Page) -> None:
    """Run All Cells, and wait until the last code cell has its number and the kernel is idle."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".jp-NotebookPanel .jp-Cell").first.click()
    page.keyboard.press("Escape")
    last = page.locator(".jp-NotebookPanel .jp-CodeCell").last
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not re.search(r"\[\d+\]", last.locator(".jp-InputPrompt").inner_text()):
        assert time.monotonic() < deadline, "the last cell has not run"
        page.keyboard.press("Control+End")  # cells out of sight are not in the page
        page.wait_for_timeout(200)
    wait_until_idle(page)


def show(page: Page, cell: Locator) -> None:
    """Scroll the notebook, whose cells out of sight are not in the page, until `cell` stays its first."""
    scroller = page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer").first
    top = scroller.bounding_box()
    assert top is not None
    in_place = 0
    for _ in range(100):
        box = cell.bounding_box() if cell.count() else None
        if box is None:
            scroller.evaluate("element => element.scrollBy(0, element.scrollTop > 300 ? -300 : 300)")
        elif abs(box["y"] - top["y"]) > 30:
            cell.evaluate("element => element.scrollIntoView({block: 'start'})")
            in_place = 0
        else:  # pictures that are still drawn, and JupyterLab's own scrolling, may move it again
            in_place += 1
        if in_place == 5:
            return
        page.wait_for_timeout(100)
    raise AssertionError("the cell does not stay in sight")


def test_tutorial_runs_to_its_end_in_the_browser(page: Page, traffic: Traffic, lab: RunningLab) -> None:
    open_tutorial(page, lab)
    expect(page.locator(".lm-TabBar-tab.lm-mod-current", has_text="otsus_method.ipynb").first).to_be_visible()

    run_all(page)

    heading = page.locator(".jp-MarkdownCell", has=page.get_by_role("heading", name="Over the whole batch"))
    show(page, heading)
    report = page.locator(".jp-CodeCell", has_text="run(otsus_method, Batch.from_environ())").locator(".jp-OutputArea")
    expect(report.locator("tbody tr")).to_have_count(len(list((lab.run_dir / "batch").iterdir())))
    screenshot(page, "lab.png")
    assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    results = sorted(path.name for path in lab.run_dir.glob("batch/*/otsus-method/*.nrrd"))
    elements = sorted(path.name for path in (lab.run_dir / "batch").iterdir())
    assert results == [f"{name}.nrrd" for name in elements]
    page.keyboard.press("Control+s")
    expect(page.locator(".lm-TabBar-tab.lm-mod-current.jp-mod-dirty")).to_have_count(0)
    cells = json.loads((lab.workspace / "otsus_method.ipynb").read_bytes())["cells"]
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
    assert traffic.outside(lab.origin) == []
    assert traffic.failures == []


def test_no_token_no_entry(page: Page, lab: RunningLab) -> None:
    response = page.request.get(f"{lab.origin}/api/contents", headers={"Authorization": ""})
    assert response.status == 403
    page.goto(f"{lab.origin}/lab")
    assert "/login" in page.url

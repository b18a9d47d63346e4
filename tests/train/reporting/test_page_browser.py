"""The report in a real browser: it opens without a fault or a request, fits, and can be read in every way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from train.reporting import page as pages

HOSTILE = ("<img src=x onerror=document.title='hacked'>", "pneumonia-of-the-" + "very-" * 12 + "long-name")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, drawn_run: Callable[..., Path]) -> Path:
    """A page of two runs, whose classes have a hostile and a long name, with images and a picture of rescaling."""
    root = tmp_path_factory.mktemp("report")
    run = drawn_run(root)
    (run / "checksums.json").unlink()  # what follows is not as it was written
    for file in (run / "settings.json", run / "predictions.csv"):
        text = file.read_text()
        for label, name in zip(("class0", "class1"), HOSTILE, strict=True):
            # But for the paths: the images stay where they are.
            text = text.replace(label, name).replace(f"/{name}/", f"/{label}/")
        file.write_text(text)
    other = run.with_name("<b>other")
    shutil.copytree(run, other)
    Image.fromarray(np.full((480, 1560, 3), 90, np.uint8)).save(other / "rescaling.png")
    (other / "rescaling.csv").write_text("size,SSIM,PSNR in dB,images\n32 x 32,0.912,30.1,12\n")

    def heat(images: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.tile(np.array([[1, 0], [0, 0]], np.float32), (len(images), 1, 1))

    out = root / "report.html"
    pages.write([other, run], root, out, lambda *_: (heat, ""), lambda *_: None)
    return out


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1600])
def test_it_opens_and_fits(report: Path, open_page, width: int, scheme: str) -> None:
    """No error, no request beside itself, every picture drawn, no scrolling sideways, and nothing that axe finds."""
    shown = open_page(report, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = shown.page
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") > 40
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.title() == "<b>other, tiny: report"
    assert page.locator("h4", has_text=HOSTILE[0]).count() == 2
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert shown.errors == []
    assert [url for url in shown.requests[1:] if urlsplit(url).scheme != "data"] == []


def test_it_is_used_by_keyboard(report: Path, open_page) -> None:
    """Tab reaches links, tables that scroll and the numbers of a figure, each with a visible focus; Enter opens them."""
    page = open_page(report, viewport={"width": 390, "height": 844}).page
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, outline, label = page.evaluate(
            "(({tagName, ariaLabel}) => [tagName, getComputedStyle(document.activeElement).outlineStyle, ariaLabel])"
            "(document.activeElement)"
        )
        assert outline != "none"
        seen.append(tag)
        if tag == "SUMMARY":
            break
        assert tag != "DIV" or label
    assert seen[:3] == ["A", "A", "A"]
    assert {"DIV", "SUMMARY"} <= set(seen)
    details = page.locator("details").first
    assert details.get_attribute("open") is None
    page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None
    page.locator("nav a").nth(2).press("Enter")
    assert page.url.endswith("#run2")


def test_the_figures_are_words_too(report: Path, open_page) -> None:
    """For a screen reader each picture has its words, each table its headers, each region its name, none twice."""
    page = open_page(report).page
    assert page.evaluate("[...document.images].every((image) => image.alt.length > 5)")
    assert page.evaluate("[...document.querySelectorAll('table')].every((each) => each.querySelector('th[scope=col]'))")
    names = page.evaluate("[...document.querySelectorAll('[role=region]')].map((each) => each.ariaLabel)")
    assert len(set(names)) == len(names)

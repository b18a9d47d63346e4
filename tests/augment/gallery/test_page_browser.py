"""The gallery in a real browser: it opens without a fault or a request, filters, compares, and takes keys."""

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from manifests import contract

HOSTILE = "<img src=x onerror=document.title='hacked'>"
RECIPE = "per_class: 40\naugment: [train, val]\nsize: [48, 36]\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_source, call) -> Path:
    """A root with a set of a plain and a hostile class, and its page. Read only."""
    root = tmp_path_factory.mktemp("built")
    make_source(root / "source", {"train/NORMAL": 12, f"train/{HOSTILE}": 30, "test/NORMAL": 3, f"test/{HOSTILE}": 3})
    (root / "source/train/NORMAL/bro<b>ken.jpeg").write_bytes(b"no image")
    (root / "set.yaml").write_text(RECIPE)
    assert call("build", "--recipe", root / "set.yaml", "--source", root / "source", "--root", root).exit_code == 0
    for options in ([], ["--embed", "30"]):
        assert call("gallery", root / "manifests/set.csv", "--root", root, *options).exit_code == 0
    return root


@pytest.fixture
def opened(root, open_page):
    """The page on a wide screen; whatever the test does to it, it must tell no error and ask for nothing else."""
    shown = open_page(root / "manifests/set.gallery.html", viewport=WIDE)
    until(shown.page, "performance.getEntriesByName('usable').length")
    yield shown
    assert shown.errors == []
    for url in shown.requests[1:]:
        assert urlsplit(url).scheme == "data" or Path(unquote(urlsplit(url).path)).is_relative_to(
            root / "data/augmented"
        )


def until(page, condition: str) -> None:
    """Wait until an expression holds in the page. Playwright's own way of it is what the page's policy forbids."""
    page.evaluate(
        f"""new Promise((resolve, reject) => {{
            const look = () => {{
                if ({condition}) resolve();
                else if (performance.now() > 30000) reject(new Error({json.dumps(condition)}));
                else requestAnimationFrame(look);
            }};
            look();
        }})"""
    )


def count(page) -> str:
    """What the page says of how many images it shows."""
    return page.locator("#count").text_content()


def test_it_opens_and_shows_sources_beside_their_variants(opened) -> None:
    """The first source has its original first, then its variants with what was drawn, all loaded."""
    first = opened.page.locator("#images > li").first
    kinds = first.locator(".kind").all_text_contents()
    assert kinds == ["original", *(f"variant {number}" for number in range(1, len(kinds)))]
    assert len(kinds) > 1
    assert "KerasAffine: theta" in first.locator(".drawn").nth(1).text_content()
    until(opened.page, "[...document.querySelectorAll('#images img')].every((image) => image.naturalWidth)")
    assert count(opened.page) == "86 of 86 images"


def test_the_first_screen_shows_images(opened) -> None:
    """Who opens the page sees variants beside their likeness at once, without scrolling."""
    opened.page.evaluate("scrollTo(0, 0)")
    until(opened.page, "document.querySelector('#strips img').naturalWidth")
    box = opened.page.locator("#strips img").first.bounding_box()
    assert box["y"] + box["height"] < WIDE["height"]


def test_hostile_names_are_text(opened) -> None:
    """A class and a rejected file that are markup show as what they are called, and nothing of them runs."""
    page = opened.page
    assert page.title() == "set: gallery"
    assert page.locator("#balance th[scope=row]").filter(has_text=HOSTILE).count() == 3
    assert page.locator("#label option").filter(has_text=HOSTILE).count() == 1
    assert page.locator("#rejected pre").filter(has_text="bro<b>ken.jpeg").count() == 1
    page.select_option("#label", HOSTILE)
    assert HOSTILE in page.locator("#images .where").first.text_content()
    page.locator("#images .tile").first.click()
    assert HOSTILE in page.locator("#pair-title").text_content()


def test_it_filters(root, opened) -> None:
    """By split, class, kind and name, as the manifest has them, and all of these together."""
    page = opened.page
    rows = contract.read(root / "manifests/set.csv")
    page.select_option("#split", "test")
    assert count(page) == f"{(rows['split'] == 'test').sum()} of 86 images"
    page.select_option("#split", "")
    page.select_option("#label", "NORMAL")
    page.select_option("#kind", "augmented")
    assert count(page) == f"{((rows['label'] == 'NORMAL') & (rows['variant'] > 0)).sum()} of 86 images"
    assert page.locator("#images .tile.original").count() == 0
    page.select_option("#kind", "original")
    assert page.locator("#images .tile:not(.original)").count() == 0
    name = rows.loc[rows["label"] == "NORMAL", "source"].iloc[0]
    page.fill("#name", name.upper())
    assert count(page) == "1 of 86 images"
    page.fill("#name", "no such name")
    assert count(page) == "0 of 86 images"
    assert page.locator("#images > li").count() == 0


def test_a_pair_opens_and_is_compared(opened) -> None:
    """A click shows variant over original, the slider says how much of which; the neighbours are a button away."""
    page = opened.page
    tiles = page.locator("#images .tile")
    tiles.nth(1).click()
    assert page.locator("#pair-title").text_content().endswith(": variant 1")
    assert page.locator("#before").get_attribute("src") == tiles.nth(0).locator("img").get_attribute("src")
    assert page.locator("#after").get_attribute("src") == tiles.nth(1).locator("img").get_attribute("src")
    page.locator("#cut").fill("20")
    assert page.locator("#cut").get_attribute("aria-valuetext") == "20 % original"
    assert page.evaluate("getComputedStyle(document.getElementById('before')).clipPath") == "inset(0px 80% 0px 0px)"
    page.locator("#previous").click()
    assert page.locator("#pair-title").text_content().endswith(": original")
    assert not page.locator("#slide").is_visible()
    assert page.locator("#previous").is_disabled()
    page.locator("#close").click()
    assert not page.locator("#pair").is_visible()


def test_a_strip_shows_its_extremes(opened) -> None:
    """The strips go from the least and from the most like on, and open as pairs."""
    page = opened.page
    for end, signs in (("least", 1), ("most", -1)):
        strip = page.locator(f".strip[data-label=NORMAL][data-end={end}]")
        values = [float(text.split()[1].rstrip(".")) for text in strip.locator(".drawn").all_text_contents()]
        assert values == sorted(values, key=lambda value: signs * value)
        assert len(values) == 6
        strip.locator(".tile").first.click()
        assert page.locator("#previous").is_disabled()
        assert page.locator("#slide").is_visible()
        page.keyboard.press("Escape")


def test_images_are_put_in_order_by_what_changed(opened) -> None:
    """By SSIM the least first, by shares the largest; images without a measure are left out, and filters still hold."""
    page = opened.page
    data = json.loads(page.locator("#data").text_content())
    by = ["of the manifest", "least SSIM", "least SSIM apart from geometry", "most invented", "most clipped"]
    assert page.locator("#order option").all_text_contents() == by
    for measure, sign in ((3, 1), (4, 1), (5, -1), (6, -1)):
        page.locator("#order").select_option(str(measure))
        tiles = page.locator("#images .tile").evaluate_all(
            "found => found.map((one) => [Number(one.dataset.source), Number(one.dataset.image)])"
        )
        values = [data["sources"][source]["images"][image][measure] for source, image in tiles]
        images = [image for source in data["sources"] for image in source["images"]]
        every = [image[measure] for image in images if len(image) > measure and image[measure] is not None]
        assert values == sorted(every, key=lambda value: sign * value)[: len(values)]
        assert len(values) > 10
    page.locator("#label").select_option("1")
    labels = page.evaluate("order.map(([source]) => data.sources[source].label)")
    assert page.locator("#count").text_content().startswith(f"{len(labels)} of ")
    assert set(labels) == {1}
    page.locator("#images .tile").first.click()
    assert " % invented" in page.locator("#facts").text_content()
    assert "SSIM apart from geometry " in page.locator("#facts").text_content()


def test_it_works_by_keyboard_alone(opened) -> None:
    """Tab comes to the images, arrows go among them however far, Enter opens, arrows slide, Escape gives back the focus."""
    page, keyboard = opened.page, opened.page.keyboard
    page.locator("#name").focus()
    keyboard.press("Tab")
    focus = "document.activeElement.dataset.source + ':' + document.activeElement.dataset.image"
    assert page.evaluate(focus) == "0:0"
    keyboard.press("ArrowRight")
    assert page.evaluate(focus) == "0:1"
    keyboard.press("Enter")
    assert page.locator("#pair").is_visible()
    page.locator("#cut").focus()
    keyboard.press("End")
    assert page.locator("#cut").get_attribute("aria-valuetext") == "100 % original"
    keyboard.press("Escape")
    assert not page.locator("#pair").is_visible()
    assert page.evaluate(focus) == "0:1"
    seen = set()
    while (now := page.evaluate(focus)) not in seen:
        seen.add(now)
        keyboard.press("ArrowRight")
    assert len(seen) == 85  # all but the first one
    before = page.evaluate("document.activeElement.getBoundingClientRect().top + scrollY")
    keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getBoundingClientRect().top + scrollY") < before


def test_only_what_is_near_the_view_is_drawn(root, open_page) -> None:
    """On a phone, scrolled to the end, the last image is there and the first is not; nothing overflows sideways."""
    page = open_page(root / "manifests/set.gallery.html", viewport=PHONE).page
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector("#images > li[aria-posinset='1']", state="detached")
    parts = page.locator("#images > li")
    assert parts.last.get_attribute("aria-posinset") == parts.last.get_attribute("aria-setsize")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size(WIDE)
    until(page, "document.getElementById('images').clientWidth > 1000")
    assert parts.count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_is_accessible(scheme: str, size: dict[str, int], root, open_page) -> None:
    """Axe finds nothing on the page, nor with a pair open, in light and dark."""
    page = open_page(root / "manifests/set.gallery.html", viewport=size, color_scheme=scheme).page
    page.locator("details summary").first.click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    page.locator("#images .tile").nth(1).click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_an_embedded_page_needs_nothing_else(root, tmp_path, open_page) -> None:
    """Moved to another folder it shows its images, and asks for no file."""
    (tmp_path / "mailed.html").write_bytes((root / "manifests/set.sample.html").read_bytes())
    shown = open_page(tmp_path / "mailed.html", viewport=WIDE)
    shown.page.locator("nav a[href='#gallery']").click()
    until(shown.page, "document.querySelectorAll('#images img').length > 10")
    until(shown.page, "[...document.querySelectorAll('#images img')].every((image) => image.naturalWidth)")
    assert all(url.startswith("data:image/") for url in shown.requests[1:] if url != "data:,")
    assert shown.errors == []


def test_a_missing_image_is_shown_as_such(root, tmp_path, open_page) -> None:
    """Away from the images, each place says that its image is not there."""
    (tmp_path / "set.gallery.html").write_bytes((root / "manifests/set.gallery.html").read_bytes())
    shown = open_page(tmp_path / "set.gallery.html", viewport=WIDE)
    shown.page.locator("nav a[href='#gallery']").click()
    until(shown.page, "document.querySelectorAll('#images .missing').length > 10")
    assert shown.page.locator("#images .missing").first.text_content() == "not on disk"


@pytest.mark.slow
def test_ten_thousand_images_are_usable_within_two_seconds(tmp_path, call, open_page) -> None:
    """By the browser's own clock: filters and the first images are there. Far down, few elements are in the page."""
    rows = []
    (tmp_path / "images").mkdir()
    for number in range(50):
        drawn = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(drawn).resize((224, 224)).save(tmp_path / f"images/{number}.jpg")
    for number in range(10_000):
        source, variant = divmod(number, 4)
        os.link(tmp_path / f"images/{number % 50}.jpg", tmp_path / f"images/source-{source}-v{variant}.jpg")
        transform = '[{"KerasAffine":{"theta":1.234567,"tx":2.345678,"ty":3.456789}}]' if variant else ""
        key = hashlib.sha256(str(source).encode()).hexdigest()
        place = (f"images/source-{source}-v{variant}.jpg", f"class{source % 2}", "train", f"source-{source}.png")
        rows.append((*place, f"patient-{source}", variant, number, transform, 224, 224, key, key))
    card = {"name": "large", "notice": "", "source": "source", "images": "images", "rejected": []}
    contract.write(tmp_path / "large.csv", pd.DataFrame(rows, columns=contract.COLUMNS), card)
    assert call("gallery", tmp_path / "large.csv", "--root", tmp_path).exit_code == 0
    shown = open_page(tmp_path / "large.gallery.html", viewport=WIDE)
    page = shown.page
    until(page, "performance.getEntriesByName('usable').length")
    assert page.evaluate("performance.getEntriesByName('usable')[0].startTime") < 2000
    assert count(page) == "10,000 of 10,000 images"
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector("#images > li[aria-posinset='2500']")
    assert page.locator("#images .tile").count() < 300
    until(page, "[...document.querySelectorAll('#images img')].every((image) => image.naturalWidth)")
    page.fill("#name", "source-2499.")
    assert count(page) == "4 of 10,000 images"
    assert shown.errors == []

"""The gallery page: what is on it, where it may go, and that nothing of a set gets in but as text."""

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import structural_similarity

from augment.gallery import summary
from augment.gallery.page import _likeness, sample
from augment.gallery.ssim import MOST, Pair, extremes, likeness, pairs, share
from manifests import contract

RECIPE = "per_class: 20\naugment: [train, val]\nsize: [32, 24]\nseed: 7\ntransforms: [{KerasAffine: {rotation_range: 9, zoom_range: 0.1}}]\n"
COUNTS = {"train/NORMAL": 5, "train/PNEUMONIA": 30, "test/NORMAL": 2, "test/PNEUMONIA": 3}
MANIFEST, PAGE = "manifests/set.csv", "manifests/set.gallery.html"


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_source, call) -> Path:
    """A root with a source folder and a set: one class augmented, one sampled down, a broken file. Read only."""
    root = tmp_path_factory.mktemp("built")
    make_source(root / "source", COUNTS)
    (root / "source/train/NORMAL/broken.jpeg").write_bytes(b"no image")
    (root / "source/NOTICE").write_text("Noise & <nothing> else.")
    (root / "set.yaml").write_text(RECIPE)
    result = call("build", "--recipe", root / "set.yaml", "--source", root / "source", "--root", root)
    assert result.exit_code == 0, result.output
    return root


def data_of(page: str) -> dict[str, Any]:
    """What the page's script draws from."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def urls_of(page: str) -> list[str]:
    """The URLs of the images that the script draws."""
    data = data_of(page)
    return [data["base"] + image[1] for source in data["sources"] for image in source["images"]]


def element(page: str, identity: str) -> str:
    """The text of the element with an id."""
    (text,) = re.findall(rf'id="{identity}"[^>]*>(.*?)</', page, re.DOTALL)
    return html.unescape(text)


def change_card(manifest: Path, **values: Any) -> None:
    """Write other values into a card, as anyone could."""
    card = contract.read_card(manifest)
    contract.card_path(manifest).write_text(json.dumps({**card, **values}))


def test_the_page_is_beside_the_manifest_and_shows_every_image(root: Path, call) -> None:
    """Each image of the manifest is referred to once, by a relative URL that leads to it; the command says where."""
    result = call("gallery", MANIFEST)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = contract.read(root / MANIFEST)
    assert result.stdout == f"Gallery of {len(rows)} images: {PAGE}\n"
    urls = urls_of((root / PAGE).read_text())
    found = [(root / "manifests" / unquote(url)).resolve() for url in urls]
    assert found == [root / path for path in rows["path"]]
    assert all(path.is_file() for path in found)
    assert not any(url.startswith("/") or ":" in url for url in urls)


def test_the_page_goes_anywhere_and_is_made_from_anywhere(root: Path, tmp_path: Path, monkeypatch, call) -> None:
    """With --root the command runs in any folder, and from --out the URLs lead to the images as well."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "elsewhere/a b#c/page.html"
    assert call("gallery", root / MANIFEST, "--root", root, "--out", out).exit_code == 0
    assert all((out.parent / unquote(url)).is_file() for url in urls_of(out.read_text()))


def test_balance_and_rejected_files_are_shown(root: Path, call) -> None:
    """Before are the sources with those that were sampled down; each rejected file is there with its reason."""
    call("gallery", MANIFEST)
    card = contract.read_card(root / MANIFEST)
    sides = summary.balance(contract.read(root / MANIFEST), card)
    of_class = {label: sum(side.before for side in sides if side.label == label) for label in ("NORMAL", "PNEUMONIA")}
    assert of_class == {"NORMAL": 7, "PNEUMONIA": 33}
    assert [(side.split, side.label, side.after) for side in sides] == [
        ("train", "NORMAL", 16), ("train", "PNEUMONIA", 16), ("val", "NORMAL", 4), ("val", "PNEUMONIA", 4),
        ("test", "NORMAL", 2), ("test", "PNEUMONIA", 3),
    ]  # fmt: skip
    assert [round(side.after_share) for side in sides] == [50, 50, 50, 50, 40, 60]
    page = html.unescape((root / PAGE).read_text())
    assert "train: 16 images a class" in page
    assert "sampled down: PNEUMONIA has" in page
    assert "train/NORMAL/broken.jpeg" in page
    for entry in card["rejected"]:
        assert entry["source"] in page
        assert entry["reason"] in page
    assert card["fingerprint"] in page
    assert "no medical device" in page
    assert "Noise & <nothing> else." in page
    assert "<nothing>" not in (root / PAGE).read_text()


def test_the_command_on_the_page_makes_the_same_set(root: Path, call) -> None:
    """With the recipe as shown in a file, the command that is shown finds the set as it would make it."""
    assert call("gallery", MANIFEST).exit_code == 0
    page = (root / PAGE).read_text()
    words = shlex.split(element(page, "command"))
    assert words[:4] == ["python", "-m", "augment", "build"]
    (root / "set.yaml").write_text(element(page, "recipe"))
    assert "Up to date" in call(*words[3:]).stdout


@pytest.mark.parametrize("seed", [0, 5])
def test_a_shipped_recipe_is_shown_by_name(seed: int, root: Path, call) -> None:
    """The command names the recipe and what was not the default; no file has to be made for it."""
    places = ("--images", "data/a b", "--manifest", "manifests/a b.csv")
    built = call("build", "--recipe", "original", "--source", "source", "--seed", str(seed), *places)
    assert built.exit_code == 0, built.output
    assert call("gallery", "manifests/a b.csv").exit_code == 0
    words = shlex.split(element((root / "manifests/a b.gallery.html").read_text(), "command"))
    seeded = ["--seed", "5"] if seed else []
    assert words[4:] == ["--recipe", "original", "--source", "source", *seeded, *places]
    assert "Up to date" in call(*words[3:]).stdout


def test_an_embedded_page_stands_alone(root: Path, tmp_path: Path, call) -> None:
    """It holds about as many images as asked for, byte for byte, of every side, and no path of this machine."""
    change_card(root / MANIFEST, source=(root / "source").as_posix())
    result = call("gallery", root / MANIFEST, "--root", root, "--embed", "15")
    assert result.exit_code == 0
    page = (root / "manifests/set.sample.html").read_text()
    assert str(tmp_path) not in page
    assert str(tmp_path) not in unquote(page)
    data = data_of(page)
    urls = urls_of(page)
    assert f"Gallery of {len(urls)} of 45 images" in result.stdout
    assert 6 <= len(urls) <= 15
    assert {(source["split"], source["label"]) for source in data["sources"]} == {
        (split, label) for split in ("train", "val", "test") for label in (0, 1)
    }
    written = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / "data/augmented/set").rglob("*.jpg")}
    for url in urls:
        kind, _, text = url.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert hashlib.sha256(base64.b64decode(text)).hexdigest() in written


def test_only_images_are_embedded(root: Path, call) -> None:
    """A manifest may come from anyone: what it names that is no image doesn't get into a page that is mailed."""
    secret = root / "data/secret.jpg"
    secret.write_text("password")
    rows, card = contract.read(root / MANIFEST), contract.read_card(root / MANIFEST)
    rows.loc[0, "path"] = "data/secret.jpg"
    contract.write(root / MANIFEST, rows, card)
    result = call("gallery", MANIFEST, "--embed", "500")
    assert result.stdout.startswith("1 images are not on disk")
    page = (root / "manifests/set.sample.html").read_text()
    assert base64.b64encode(b"password").decode() not in page
    assert data_of(page)["sources"][0]["images"][0][1] is None


def test_the_page_is_the_same_whoever_makes_it(root: Path, call) -> None:
    """One worker or three, again or for the first time: the same bytes."""
    pages = []
    for workers in ("1", "3", "3"):
        assert call("gallery", MANIFEST, "--workers", workers).exit_code == 0
        pages.append((root / PAGE).read_bytes())
    assert pages[0] == pages[1] == pages[2]


def test_a_missing_image_is_reported_and_the_page_is_made(root: Path, call) -> None:
    """The others are there; the command and the page say how many are not."""
    rows = contract.read(root / MANIFEST)
    gone = rows.loc[rows["variant"] == 1, "path"].iloc[0]
    (root / gone).unlink()
    result = call("gallery", MANIFEST)
    assert result.exit_code == 0
    assert result.stdout.startswith("1 images are not on disk")
    page = (root / PAGE).read_text()
    assert "1 of these images are not on disk" in page
    assert "1 could not be compared" in page
    assert [image[1] for source in data_of(page)["sources"] for image in source["images"]].count(None) == 1


def test_only_its_own_style_and_script_may_run(root: Path, call) -> None:
    """The content security policy allows just the page's own style and script, by hash, and images; no request else."""
    assert call("gallery", MANIFEST).exit_code == 0
    page = (root / PAGE).read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    for name in ("style", "script"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{html.escape(digest)}'" in policy
    assert policy.startswith("default-src 'none'; img-src 'self' file: data:; ")
    assert not re.search(r"\s(on\w+|style)=", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL))
    assert "https://" not in page
    assert "http://" not in page


def test_hostile_names_stay_text(tmp_path: Path, make_source, monkeypatch, call) -> None:
    """Class, file and notice that are markup are escaped, and don't end the script that holds the data."""
    classes = ["<img src=x onerror=alert(1)>", "<script>alert(2)"]
    make_source(tmp_path / "source", {f"train/{name}": 9 for name in classes})
    evil = "<!--<script>&amp;'\"%41 #?.jpeg"
    next((tmp_path / "source/train" / classes[0]).iterdir()).rename(tmp_path / "source/train" / classes[0] / evil)
    (tmp_path / "source/NOTICE").write_text("</script><b>notice</b>")
    (tmp_path / "set.yaml").write_text("per_class: 6\naugment: [train, val]\nsize: 16\ntransforms: [HorizontalFlip]\n")
    monkeypatch.chdir(tmp_path)
    built = call("build", "--recipe", "set.yaml", "--source", "source")
    assert built.exit_code == 0, built.output
    result = call("gallery", MANIFEST)
    assert result.exit_code == 0, result.output
    page = (tmp_path / PAGE).read_text()
    assert "<img src=x" not in page
    assert "<b>notice" not in page
    assert page.count("<script") == 2
    assert data_of(page)["labels"] == sorted(classes)
    assert evil in {source["name"].rpartition("/")[2] for source in data_of(page)["sources"]}
    assert all((tmp_path / "manifests" / unquote(url)).is_file() for url in urls_of(page))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([MANIFEST, "--out", MANIFEST], "should end in .html"),
        ([MANIFEST, "--out", "source/train/page.html"], "never written to"),
        (["manifests/none.csv"], "no such manifest"),
        ([MANIFEST, "--out", "set.yaml/page.html"], "set.yaml"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], shown: str, root: Path, call) -> None:
    """Exit code 2 and one line with the fix; neither manifest nor source folder is touched."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    result = call("gallery", *words)
    assert result.exit_code == 2
    assert shown in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_empty_manifest_is_an_error(root: Path, call) -> None:
    """A manifest without rows has nothing to show."""
    contract.write(root / MANIFEST, contract.read(root / MANIFEST).iloc[:0], contract.read_card(root / MANIFEST))
    result = call("gallery", MANIFEST)
    assert (result.exit_code, "lists no images" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"recipe": None, "rejected": None, "versions": None, "source": None, "notice": None, "name": None},
        {"recipe": {"name": "../../dev/zero", "seed": "x"}, "rejected": ["?", 3, {}], "versions": [], "source": 4},
        {"recipe": [], "rejected": {"a": 1}, "name": {"<b>": 1}, "fingerprint": ["<b>"], "counts": 3},
    ],
)
def test_a_card_changed_by_hand_costs_no_page(values: dict[str, Any], root: Path, call) -> None:
    """What is not as the builder writes it is left out or shown as text; the images are there."""
    contract.card_path(root / MANIFEST).write_text(json.dumps(values))
    result = call("gallery", MANIFEST)
    assert result.exit_code == 0, result.output
    page = (root / PAGE).read_text()
    assert "no recipe that could be built from" in page
    assert "<b>1" not in page
    assert len(urls_of(page)) == 45


def test_the_least_alike_variants_are_the_damaged_ones(root: Path, call) -> None:
    """A variant that is blank is the first of its class's strip; one that equals its source the first of the other."""
    rows = contract.read(root / MANIFEST)
    of_class = rows[(rows["label"] == "NORMAL") & (rows["split"] == "train") & (rows["variant"] > 0)]
    blank, same = of_class["path"].iloc[:2]
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(root / blank)
    shutil.copy(root / re.sub(r"-v\d+\.jpg$", "-v0.jpg", same), root / same)
    assert call("gallery", MANIFEST).exit_code == 0
    data = data_of((root / PAGE).read_text())
    strip = next(strip for strip in data["strips"] if strip["label"] == "NORMAL")

    def shown(place: list[int]) -> tuple[str, float]:
        image = data["sources"][place[0]]["images"][place[1]]
        return unquote(data["base"] + image[1]).removeprefix("../"), image[3]

    assert shown(strip["least"][0])[0] == blank
    assert shown(strip["most"][0]) == (same, 1.0)


def test_ssim_is_skimages(tmp_path: Path) -> None:
    """Of gray and RGB files, also against each other; None where there is nothing to compare."""
    rng = np.random.default_rng(0)
    gray, color = rng.integers(0, 256, (20, 30), dtype=np.uint8), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for name, pixels in {"gray": gray, "color": color, "small": gray[:5, :6], "tiny": gray[:2], "wide": gray.T}.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no image")

    def between(one: str, other: str) -> float | None:
        found = likeness(Pair("", f"{tmp_path}/{one}.png", f"{tmp_path}/{other}.png", 0), None)
        return found and found.ssim

    assert between("gray", "gray") == pytest.approx(1)
    assert between("small", "small") == pytest.approx(1)
    both = np.dstack([gray] * 3), color
    assert between("gray", "color") == pytest.approx(structural_similarity(*both, channel_axis=2, data_range=255))
    for name in ("tiny", "wide", "text", "none"):
        assert between("gray", name) is None
    assert between("tiny", "tiny") is None


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(20, 2000))
def test_a_share_is_the_most_that_fits(counts: list[int], most: int) -> None:
    """Classes cut to the share together stay within what is wanted; one more each would not fit or not help."""
    found = share(pd.Series(counts), most)
    assert sum(min(count, found) for count in counts) <= most
    assert max(counts) <= found or sum(min(count, found + 1) for count in counts) > most


def test_variants_without_their_original_are_counted_apart(root: Path, call) -> None:
    """A set that shows a source augmented only has nothing to compare it with: the page says that, and no sample."""
    rows = contract.read(root / MANIFEST)
    variants = rows[rows["variant"] > 0]
    hidden = variants["source"].iloc[0]
    alone = int((variants["source"] == hidden).sum())
    kept = rows[(rows["source"] != hidden) | (rows["variant"] > 0)]
    compared = {pair.path: 0.5 for pair in pairs(kept, root)}
    found = _likeness(kept, dict(compared))
    assert (found["variants"], found["alone"], found["compared"]) == (len(variants) - alone, alone, len(compared))
    assert found["variants"] == found["compared"]
    contract.write(root / MANIFEST, kept, contract.read_card(root / MANIFEST))
    assert call("gallery", MANIFEST).exit_code == 0
    page = (root / PAGE).read_text()
    assert f"{alone} more have no original of their source in the set" in page
    assert "These are a sample" not in page


def test_of_a_large_set_a_sample_is_compared(tmp_path: Path) -> None:
    """It is picked by checksum, whatever the rows' order, and a rare class is in it whole."""
    count = 3 * MOST
    rows = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(count)],
            "label": ["rare" if number < 300 else "common" for number in range(count)],
            "split": "train",
            "source": [f"{number // 2}.png" for number in range(count)],
            "variant": [number % 2 for number in range(count)],
            "seed": 0,
            "sha256": [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)],
        }
    )
    picked = {pair.path for pair in pairs(rows, tmp_path)}
    assert picked == {pair.path for pair in pairs(rows.sample(frac=1, random_state=1), tmp_path)}
    assert len(picked) == MOST
    assert len(picked & set(rows.loc[rows["label"] == "rare", "path"])) == 150


def test_a_sample_holds_whole_sources_of_every_side(built: Path) -> None:
    """All variants of a source are in it but for the last one's; asked for more than there is, it is the set."""
    rows = contract.read(built / MANIFEST)
    some = sample(rows, 24)
    assert sample(rows, 1000).equals(rows)
    assert set(some["split"] + some["label"]) == set(rows["split"] + rows["label"])
    whole = some["source"].map(some.groupby("source").size()) == some["source"].map(rows.groupby("source").size())
    assert some.loc[~whole].groupby(["split", "label"])["source"].nunique().max() <= 1


def test_extremes_share_no_variant() -> None:
    """With few variants each is at one end only, and what could not be compared at none."""
    rows = pd.DataFrame({"path": list("abcd"), "label": ["x", "x", "x", "y"]})
    shown = extremes(rows, {"a": 0.2, "b": 0.9, "c": 0.5, "d": None}, 2)
    assert [(strip.label, strip.least, strip.most) for strip in shown] == [("x", ["a", "c"], ["b"])]


@pytest.mark.parametrize(
    ("transform", "shown"),
    [
        ("", ""),
        ('[{"KerasAffine":{"theta":4.012636,"tx":-3.739486}}]', "KerasAffine: theta 4.01, tx -3.74"),
        ('[{"Flip":{}},{"Noise":{"std":0.00123,"n":3,"on":true,"a":[1,2.5],"s":"x"}}]',
         "Flip; Noise: std 0.001, n 3, on true, a [1, 2.5], s x"),
        ("[1]", "[1]"),
        ("{}", ""),
        ("nonsense", "nonsense"),
    ],
)  # fmt: skip
def test_parameters_are_shown_in_short(transform: str, shown: str) -> None:
    """Numbers to two places, small ones to one digit; what is not as the builder writes it is shown as it is."""
    assert summary.parameters(transform).replace("\N{NO-BREAK SPACE}", " ") == shown


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"size": [32, 24]}, "32 x 24 pixels, stretched to that size, as JPEG"),
        ({"size": 32, "fit": "pad", "format": "png"}, "32 x 32 pixels, padded with black to that size, as PNG"),
        ({"fit": "crop"}, "224 x 224 pixels, cropped to that size, as JPEG"),
        ({"fit": "sideways"}, ""),
        (None, ""),
    ],
)
def test_the_page_says_how_images_came_to_their_size(settings: dict[str, object] | None, shown: str) -> None:
    """From the card; a card that doesn't say, or says nonsense, says nothing here."""
    assert summary.image_form({"recipe": settings}) == shown

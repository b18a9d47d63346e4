"""The report: one page of finished runs."""

import base64
import hashlib
import html
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.evaluation import results
from train.reporting import page
from train.reporting.error_analysis import Heat

DrawnRun = Callable[..., Path]
HOSTILE = ("<img src=x onerror=alert(1)>", "_</style><script>alert(2)</script> $\\frac{$ \u202e{{ 7*7 }}")


def no_model(run: Path, size: tuple[int, int]) -> tuple[Heat | None, str]:
    """As for a run whose model is gone."""
    return None, f"{run.name} has no model for {size}"


def corner(*_: object) -> tuple[Heat | None, str]:
    """Evidence in the upper left, whatever the image."""
    return lambda images, _: np.tile(np.array([[1, 0], [0, 0]], np.float32), (len(images), 1, 1)), ""


def unseen(*_: int) -> None:
    """Progress that nobody looks at."""


def write(*runs: Path, root: Path, heat: page.LoadHeat = corner) -> str:
    """Write the report of runs, and read it."""
    out = root / "report.html"
    page.write(list(runs), root, out, heat, unseen)
    return out.read_text()


def text(of: str) -> str:
    """A page without its tags, as one line."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", of, flags=re.DOTALL)).split())


def test_a_run_is_shown_with_all_that_belongs_to_it(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Numbers with intervals, the confusion matrices, all figures with words and tables, images, settings, limits."""
    run = drawn_run(tmp_path)
    shown = write(run, root=tmp_path)
    found = results.read(run).metrics
    words = text(shown).replace("\N{NO-BREAK SPACE}", " ")
    for phase in found.values():
        for way in phase.test.decisions.values():
            assert str(way.balanced_accuracy) in words
            rows = " ".join(f"class{index} {' '.join(map(str, row))}" for index, row in enumerate(way.confusion))
            assert rows in words
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", shown)
    assert titles == [
        "Accuracy in training", "Loss in training", "ROC curve", "Precision and recall", "Reliability",
        "Threshold, fine-tuned",
    ]  # fmt: skip
    assert "Fine-tuning starts with epoch 3." in html.unescape(shown)
    assert f"The chosen threshold is {found['fine-tuned'].threshold.value:.3f}." in html.unescape(shown)
    assert words.count("Numbers of ") == 6
    assert "strongest in the upper left" in shown
    assert "One image of 8 is 12.50 points of accuracy." in words
    assert "With 8 validation images" in words
    assert "learnt next to nothing" in words
    assert "class1 is the positive class." in words
    assert "test of 8 images, 8 groups; positive: class1" in words
    assert "fine-tuned, class1 from 0.5 on" in words
    assert "training was stopped and the threshold was chosen by little more than chance" in words
    assert "what came of it" not in words.lower()
    assert "no medical device" in words
    assert "fine_tune_learning_rate 1e-05" in words


def test_the_pictures_are_whole_and_their_text_is_text(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Every image is inside the page and has words; the figures are well-formed SVG without a date."""
    shown = write(drawn_run(tmp_path), root=tmp_path)
    images = re.findall(r'<img[^>]*src="([^"]*)" alt="([^"]*)"', shown)
    assert len(images) == len(re.findall(r"<img", shown)) > 10
    assert all(alt for _, alt in images)
    figures = [base64.b64decode(url.partition(",")[2]) for url, _ in images if url.startswith("data:image/svg+xml")]
    assert len(figures) == 6
    for figure in figures:
        tree = ET.fromstring(figure)  # noqa: S314  # our own
        assert "dc:date" not in figure.decode()
        assert any((element.text or "").strip() for element in tree.iter("{http://www.w3.org/2000/svg}text"))
    for words in ("observed frequency", "mean predicted probability of class1", "perfectly calibrated"):
        assert words in figures[4].decode()
    assert sum("of class1, the positive class" in alt for _, alt in images) == 4


def test_the_page_is_the_same_each_time(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """No date, no random ids, no path of this machine, however it is asked for."""
    run = drawn_run(tmp_path)
    first = write(run, root=tmp_path)
    assert write(run / ".." / run.name, root=tmp_path) == first
    assert str(tmp_path) not in first


def test_nothing_but_itself_may_be_loaded(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """The content security policy allows images inside the page and its own style, by hash; there is no script."""
    shown = write(drawn_run(tmp_path), root=tmp_path)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', shown)
    (style,) = re.findall(r"<style>(.*?)</style>", shown, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{html.escape(digest)}'")
    assert "<script" not in shown
    assert not re.search(r"\s(on\w+|style)=", re.sub(r"<style.*?</style>", "", shown, flags=re.DOTALL))
    assert not re.search(r'(src|href)="(?!data:|#)', shown)


def test_hostile_names_stay_text(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Class names, run names and notices that are markup are escaped, also in the figures; no direction is turned."""
    run = drawn_run(tmp_path)
    hostile = run.with_name("<b>run & 'co'")
    run.rename(hostile)
    for name in ("settings.json", "predictions.csv"):
        file = hostile / name
        for label, evil in zip(("class0", "class1"), HOSTILE, strict=True):
            file.write_text(file.read_text().replace(label, json.dumps(evil)[1:-1] if "json" in name else evil))
    (hostile / "checksums.json").unlink()
    settings = json.loads((hostile / "settings.json").read_text())
    (hostile / "settings.json").write_text(json.dumps(settings | {"notice": "</p><iframe>\ud800", "backbone": "<i>"}))
    shown = write(hostile, root=tmp_path)
    for tag in ("<img src=x", "<script", "<b>run", "<iframe", "<i>", "\u202e"):
        assert tag not in shown
    assert HOSTILE[0] in html.unescape(shown)
    assert "{{ 7*7 }}" in shown
    for url in re.findall(r"data:image/svg\+xml;base64,([^\"]*)", shown):
        ET.fromstring(base64.b64decode(url))  # noqa: S314  # our own
    reliability = base64.b64decode(re.findall(r"data:image/svg\+xml;base64,([^\"]*)", shown)[4]).decode()
    assert "\\u202e" not in reliability, "cut before it"
    assert "_&lt;/style&gt;&lt;script&gt;" in reliability


def test_what_is_gone_is_reported(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Without the model no evidence, without an image no such image, without the set none at all; the rest stays."""
    run = drawn_run(tmp_path)
    shown = write(run, root=tmp_path, heat=no_model)
    assert "tiny has no model for (64, 64)" in text(shown)
    assert "The run holds no picture of it" in text(shown)
    assert shown.count("data:image/jpeg") == 8
    for path in (tmp_path / "data" / "tiny" / "test").rglob("*0.jpg"):
        path.unlink()
    assert "2 of 8 images are not shown" in text(write(run, root=tmp_path))
    shutil.rmtree(tmp_path / "manifests")
    shown = write(run, root=tmp_path)
    assert "The images are not shown: the set's manifest, tiny.csv, is not there any more." in text(shown)
    assert "data:image/jpeg" not in shown
    assert "ROC curve" in shown


def test_rescaling_is_shown_as_the_run_has_it(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """The picture of the run, with its numbers as a table."""
    run = drawn_run(tmp_path)
    Image.fromarray(np.full((40, 120, 3), 90, np.uint8)).save(run / "rescaling.png")
    (run / "rescaling.csv").write_text(
        "size,SSIM,PSNR in dB,images\n32 x 32,0.912,30.1,12\n64 x 64,1.000,identical,12\n"
    )
    shown = write(run, root=tmp_path)
    assert "32 x 32 0.912 30.1 12 64 x 64 1.000 identical 12" in text(shown)
    assert "32 x 32: SSIM 0.912, PSNR 30.1" in shown
    (run / "rescaling.png").write_bytes(b"no picture")
    assert "The run holds no picture of it" in text(write(run, root=tmp_path))


@pytest.mark.slow
def test_runs_are_compared(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Each pair and phase, with interval, test and what may be said; the study's numbers not beside other images."""
    runs = [drawn_run(tmp_path, "augment1"), drawn_run(tmp_path, "other", seed=1)]
    words = text(write(*runs, runs[0], root=tmp_path)).replace("\N{NO-BREAK SPACE}", " ")
    assert "2 runs compared" in words, "one that is named twice is shown once"
    for one, two in (("augment1 frozen", "augment1 fine-tuned"), ("augment1 frozen", "other frozen")):
        assert words.count(f"{two} less {one}") == 3
    assert "0.8638" not in words, "called like a set of the study, and of other classes"
    assert "Accuracy by size" not in words
    curves = words.partition("ROC curves of all runs, last phase")[2].partition("Precision and recall of all runs")[0]
    assert "false positives augment1 other" in curves, "the header of the numbers: a column a run"


@pytest.mark.slow
def test_runs_on_other_images_are_not_compared_but_shown(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """The page says why, and has both; sizes that differ stand beside the accuracy."""
    runs = [drawn_run(tmp_path), drawn_run(tmp_path, "small", test=3, size=32)]
    words = text(write(*runs, root=tmp_path))
    assert "Not compared by differences: small frozen and tiny frozen are on different test images" in words or (
        "Not compared by differences: tiny frozen and small frozen are on different test images" in words
    )
    assert "Accuracy by size of the images" in words
    assert "32 x 32 small frozen" in words
    assert "of all runs, last phase" not in words


@pytest.mark.slow
def test_a_set_without_test_images_is_judged_on_validation(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """And the page says what that is worth."""
    words = text(write(drawn_run(tmp_path, test=0), root=tmp_path))
    assert "Not compared by differences" in words
    assert "they flatter the model" in words
    assert "are of the val images" in words


@pytest.mark.slow
def test_many_classes_fit(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Nine classes, one phase: one matrix, seven lines that can be distinguished, some of every class's images."""
    run = drawn_run(tmp_path, classes=9, phases=("frozen",), val=2, test=2)
    shown = write(run, root=tmp_path)
    assert shown.count('class="confusion"') == 1
    assert "frozen, the most probable class" in shown
    assert len(re.findall(r"<h4>class\d</h4>", shown)) == 9
    assert "threshold" not in text(shown), "several classes have none"
    assert "training was stopped by little more than chance" in text(shown)
    assert "positive class" not in text(shown)
    assert 9 <= shown.count('<div class="pair">') <= 27, "no more than one of a kind"
    assert "There is no fine-tuning." in shown
    roc = base64.b64decode(re.findall(r"data:image/svg\+xml;base64,([^\"]*)", shown)[2]).decode()
    assert len(set(re.findall(r">(class\d)<", roc))) == 7


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("metrics.json", "frozen", {"val": {"decisions": {}}}),
        ("metrics.json", "frozen", {"val": {"decisions": []}, "test": 3}),
        ("settings.json", "classes", "ab"),
        ("settings.json", "classes", ["class0", 1]),
        ("settings.json", "positive", "class0"),
        ("settings.json", "images", {"train": "many"}),
        ("settings.json", "set", ["a"]),
        ("history.csv", "loss", "lost"),
        ("history.csv", "val_accuracy", "x"),
    ],
)
def test_a_damaged_run_is_one_line(drawn_run: DrawnRun, tmp_path: Path, name: str, key: str, value: object) -> None:
    """The message names the folder and the fix, and no page is written."""
    run = drawn_run(tmp_path)
    file = run / name
    if name.endswith("json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    else:
        file.write_text(file.read_text().replace(key, str(value), 1))
    with pytest.raises(results.ResultsError, match=rf"{run}.*train"):
        write(run, root=tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("name", "depth"), [("metrics.json", 100_000), ("metrics.json", 600), ("settings.json", 600)])
def test_deep_nesting_is_one_line(drawn_run: DrawnRun, tmp_path: Path, name: str, depth: int) -> None:
    """Deeper than Python reads, or than it writes: a damaged run, and no traceback."""
    run = drawn_run(tmp_path)
    nested = "[" * depth + "]" * depth
    kept = json.loads((run / name).read_text())
    key = "classes" if name == "settings.json" else "frozen"
    text = json.dumps(kept | {key: "here"}).replace('"here"', nested)
    (run / name).write_text(text)
    with pytest.raises(results.ResultsError, match=rf"{run}.*train"):
        write(run, root=tmp_path)


def test_a_page_needs_a_place(drawn_run: DrawnRun, tmp_path: Path) -> None:
    """Its name ends in .html, and the place can be written to."""
    run = drawn_run(tmp_path)
    for out, found in ((tmp_path / "report.csv", "end in .html"), (run / "metrics.json" / "x.html", "another place")):
        with pytest.raises(page.PageError, match=found):
            page.write([run], tmp_path, out, no_model, unseen)


def test_where_the_page_goes() -> None:
    """Into a run; beside several; where their ways part if they are far from each other."""
    assert page.default_out([Path("runs/a")]) == Path("runs/a/report.html")
    assert page.default_out([Path("runs/a"), Path("runs/b")]) == Path("runs/report.html")
    assert page.default_out([Path("/x/runs/a"), Path("/x/other/b")]) == Path("/x/report.html")

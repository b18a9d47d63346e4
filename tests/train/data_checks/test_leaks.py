"""What a run has learnt from is known again: by its source, its file, its pixels and its patients."""

import hashlib
import io
import json
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from manifests import contract
from train import checksums
from train import dataset as datasets
from train.cli import main
from train.data_checks import leaks
from train.features import store
from train.inference import external_validation, files, predict, predictor
from train.inference.predictor import Trained

CLASSES = ("class0", "class1")
Rows = pd.DataFrame


def call(*words: object) -> Result:
    """Run a command of `train`."""
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def loaded(make_run: Callable[..., Path]) -> Trained:
    """An untrained model: what it was trained on is what matters here."""
    return predictor.load(make_run(classes=CLASSES, threshold={"value": 0.5, "chosen_by": "hand"}))


@pytest.fixture
def run(loaded: Trained, image_set: Callable[..., Path], tmp_path: Path) -> Trained:
    """A run with the record of the set `tiny`, as `fit` writes it."""
    dataset = datasets.read(image_set(), tmp_path)
    folder = tmp_path / "run"
    for name in ("run", "cache"):
        (tmp_path / name).mkdir()
    leaks.write(folder, dataset, tmp_path / "cache")
    added = {"source": "source", "manifest": "manifests/tiny.csv", "manifest_sha256": dataset.sha256}
    return loaded._replace(run=folder, settings=loaded.settings | added)


def evaluate(run: Trained, manifest: Path, root: Path, **options: bool) -> external_validation.Measured:
    """Measure a run on another set."""
    return external_validation.measure(run, manifest, root, lambda *_: None, **options)


def refusal(run: Trained, manifest: Path, root: Path, **options: bool) -> str:
    """Why a set is refused."""
    with pytest.raises(external_validation.ExternalValidationError) as caught:
        evaluate(run, manifest, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def another(root: Path, change: Callable[[Rows], Rows], name: str = "other", **card: Any) -> Path:
    """A manifest of the images of `tiny` after a change, with a card of its own."""
    rows = contract.read(root / "manifests" / "tiny.csv")
    manifest = root / "manifests" / f"{name}.csv"
    contract.write(manifest, change(rows), {"name": name, "source": "elsewhere"} | card)
    return manifest


def swapped(rows: Rows) -> Rows:
    """The images of train are those of test, and the other way round."""
    return rows.assign(split=rows["split"].map({"train": "test", "test": "train", "val": "val"}))


def renamed(rows: Rows) -> Rows:
    """The same, with other names and checksums of sources and patients: a folder of other files."""
    digests = [hashlib.sha256(f"other {text}".encode()).hexdigest() for text in rows["source_sha256"]]
    return swapped(rows).assign(source_sha256=digests, group=[f"p{number}" for number in range(len(rows))])


def drawn_anew(root: Path, rows: Rows, **options: Any) -> Rows:
    """The same pictures in new files: of another quality, or of other pixels altogether."""
    rows = rows.copy()
    for number, path in enumerate(rows["path"]):
        with Image.open(root / path) as image:
            pixels = image.copy()
        if "noise" in options:
            drawn = np.random.default_rng(1000 + number).normal(100, 30, (64, 64))
            pixels = Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))
        file = io.BytesIO()
        pixels.save(file, "jpeg", quality=options.get("quality", 90))
        new = root / "new" / path
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(file.getvalue())
        rows.loc[number, "path"] = f"new/{path}"
        rows.loc[number, "sha256"] = hashlib.sha256(file.getvalue()).hexdigest()
    return rows


@pytest.mark.parametrize(
    ("change", "card", "reason"),
    [
        (lambda _, rows: swapped(rows), {}, "the same source: 16"),
        (lambda _, rows: renamed(rows), {}, "the same file: 16"),
        (lambda root, rows: drawn_anew(root, renamed(rows), quality=75), {}, "the same pixels: 16"),
        (
            lambda root, rows: drawn_anew(root, renamed(rows).assign(group=rows["group"]), noise=True),
            {"source": "source"},
            "the same group: 16",
        ),
    ],
    ids=["source", "file", "pixels", "group"],
)
def test_images_that_were_learnt_from_are_refused(
    run: Trained, tmp_path: Path, change: Callable[[Path, Rows], Rows], card: dict[str, str], reason: str
) -> None:
    """Whatever lies at the path of the run's own manifest by now; named, counted, and with the fix."""
    manifest = another(tmp_path, lambda rows: change(tmp_path, rows), **card)
    contract.write(tmp_path / "manifests" / "tiny.csv", contract.read(manifest), {"name": "tiny"})
    words = refusal(run, manifest, tmp_path)
    assert "16 of its 16 test images" in words
    assert contract.read(manifest).query("split == 'test'")["path"].iloc[0] in words
    assert reason in words
    assert "--on-leak drop" in words
    assert "learnt from all of its 16" in refusal(run, manifest, tmp_path, drop_leaks=True)


def test_the_root_and_the_directory_do_not_matter(
    run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From anywhere, and with the set's folder moved to another place."""
    manifest = another(tmp_path, swapped)
    monkeypatch.chdir("/")
    assert "the same source: 16" in refusal(run, manifest, tmp_path)
    moved = tmp_path / "moved"
    for name in ("data", "manifests"):
        shutil.move(tmp_path / name, moved / name)
    assert "the same source: 16" in refusal(run, moved / "manifests" / "other.csv", moved)


def half(rows: Rows) -> Rows:
    """Every second image of train and test is a test image, so that the run has learnt from some."""
    odd = rows["split"].isin(["train", "test"]) & (rows["seed"] % 2 == 1)
    return rows.assign(split=np.where(odd, "test", "train"))


def test_the_rest_is_measured_if_leaks_are_dropped(run: Trained, tmp_path: Path) -> None:
    """The figures are those of the images that the run has not learnt from."""
    manifest = another(tmp_path, half)
    assert "8 of its 12 test images" in refusal(run, manifest, tmp_path)
    found = evaluate(run, manifest, tmp_path, drop_leaks=True)
    assert found.check == external_validation.Check(("source", "file", "pixels", "group"), 8, ())
    assert found.metrics.images == 4


def test_the_runs_own_test_images_are_no_leak(run: Trained, tmp_path: Path) -> None:
    """Nor are they if the set was built again under another name."""
    for manifest in (tmp_path / "manifests" / "tiny.csv", another(tmp_path, lambda rows: rows)):
        assert evaluate(run, manifest, tmp_path).check.left_out == 0


def test_another_hospitals_patients_may_be_called_alike(run: Trained, tmp_path: Path) -> None:
    """Without an image in common and from another folder: measured, with a line; else refused, or as the user says."""

    def of_other_place(rows: Rows) -> Rows:
        return drawn_anew(tmp_path, renamed(rows).assign(group=rows["group"]), noise=True)

    manifest = another(tmp_path, of_other_place)
    check = evaluate(run, manifest, tmp_path).check
    assert check.by == ("source", "file", "pixels")
    assert check.notes[0].startswith("16 of its groups are called as groups that the run learnt from. They are taken")
    unknown = another(tmp_path, lambda _: contract.read(manifest), "unknown", source="")
    assert refusal(run, unknown, tmp_path).endswith("--other-groups says that these are others of the same name")
    assert evaluate(run, unknown, tmp_path, other_groups=True).check.notes == ()


def test_of_an_older_run_is_said_what_was_not_checked(run: Trained, tmp_path: Path) -> None:
    """Its manifest stands in for the record, by its checksum; where that is another by now, nothing was checked."""
    (run.run / leaks.NAME).unlink()
    manifest, own = another(tmp_path, swapped), tmp_path / "manifests" / "tiny.csv"
    assert "the same source: 16" in refusal(run, manifest, tmp_path)
    check = evaluate(run, own, tmp_path).check
    assert check.by == ("source", "file", "group")
    assert check.notes[0].startswith("Not checked by pixels")
    contract.write(own, contract.read(manifest), {"name": "tiny"})
    check = evaluate(run, own, tmp_path).check
    assert check.by == ()
    assert check.notes[0].startswith("Not checked: whether the run learnt from these images")


def test_predict_marks_what_was_learnt_from(run: Trained, tmp_path: Path) -> None:
    """By its file, as a copy under another name, and by its pixels in another format; the test images are not marked."""
    rows = contract.read(tmp_path / "manifests" / "tiny.csv")
    folder = tmp_path / "loose"
    folder.mkdir()
    first = {split: tmp_path / rows[rows["split"] == split]["path"].iloc[0] for split in ("train", "val", "test")}
    for split, path in first.items():
        shutil.copyfile(path, folder / f"{split}.copy")
        Image.open(path).resize((150, 130)).save(folder / f"{split}.png")
    table = predict.predict(run, files.listed([folder]), lambda *_: None, record=leaks.read(run.run))
    marks = {Path(name).name: mark for name, mark in zip(table["file"], table["trained_on"], strict=True)}
    assert marks == {
        "test.copy": "",
        "test.png": "",
        "train.copy": "train, the same file",
        "train.png": "train, the same pixels",
        "val.copy": "val, the same file",
        "val.png": "val, the same pixels",
    }


@pytest.mark.slow
def test_the_commands_say_what_was_found(run: Trained, loaded: Trained, tmp_path: Path) -> None:
    """For people and as JSON: refused in one line, what was left out, what could not be checked, what is marked."""
    for name in ("settings.json", "metrics.json", "model.keras"):
        shutil.copyfile(loaded.run / name, run.run / name)
    manifest = another(tmp_path, half)
    where = ("evaluate", run.run, manifest, "--root", tmp_path)
    for options in ((), ("--json",)):
        result = call(*where, *options)
        assert result.exit_code == 2, result.output
        assert "8 of its 12 test images" in result.output.splitlines()[-1]
    result = call(*where, "--on-leak", "drop", "--json")
    assert json.loads(result.stdout)["leak_check"] == {
        "by": ["source", "file", "pixels", "group"],
        "left_out": 8,
        "notes": [],
    }
    assert "their groups: 8 images" in call(*where, "--on-leak", "drop").output
    out = tmp_path / "out.csv"
    result = call("predict", run.run, tmp_path / "data", "--out", out)
    assert "24 of them the run has learnt from" in result.output
    assert (pd.read_csv(out, keep_default_na=False)["trained_on"] != "").sum() == 24
    (run.run / leaks.NAME).unlink()
    assert "Not checked: whether" in call("predict", run.run, tmp_path / "data").output
    assert "Not checked: whether" in call(*where).output
    assert json.loads(call(*where, "--json").stdout)["leak_check"]["by"] == []


def test_the_record_names_no_patient_and_damage_is_one_line(run: Trained, tmp_path: Path) -> None:
    """It holds checksums and tiny pictures; cut or altered it is named, with the fix."""
    file = run.run / leaks.NAME
    text = file.read_text()
    rows = contract.read(tmp_path / "manifests" / "tiny.csv")
    assert not any(group in text for group in rows["group"])
    for damage in (text[:-100], text.replace("thumbnail", "thumb"), text.replace("=\n", "\n"), ""):
        file.write_text(damage)
        with pytest.raises(leaks.LeakError) as caught:
            leaks.read(run.run)
        assert str(caught.value).startswith(f"{file} is damaged")
        assert str(caught.value).endswith("train the run again")


def test_a_second_run_reads_no_image_for_its_record(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """The thumbnails are kept by checksum; an image that is not the manifest's gives none."""
    dataset = datasets.read(image_set(), tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    path = dataset.paths(dataset.rows)[0]
    kept = path.read_bytes()
    path.write_bytes(dataset.paths(dataset.rows)[1].read_bytes())
    with pytest.raises(datasets.DatasetError, match="not the image in the manifest"):
        leaks.learnt(dataset, cache)
    path.write_bytes(kept)
    first = leaks.learnt(dataset, cache)
    shutil.rmtree(tmp_path / "data")
    pd.testing.assert_frame_equal(leaks.learnt(dataset, cache), first)
    assert (first["thumbnail"].str.len() == 344).all()
    assert len(first) == (dataset.rows["split"] != "test").sum()


def test_a_source_that_the_set_shows_augmented_only_is_known_by_its_file(
    image_set: Callable[..., Path], tmp_path: Path
) -> None:
    """Its thumbnail is the source file's, read once; one that is gone, another by now or no image has none."""
    dataset = datasets.read(image_set(), tmp_path)
    rows = dataset.rows.copy()
    learnt = rows.index[rows["split"] != "test"][:4]
    data = [*(path.read_bytes() for path in dataset.paths(dataset.rows.loc[learnt[:3]])), b"no image"]
    for row, content in zip(learnt, data, strict=True):
        rows.loc[row, "variant"] = 1
        rows.loc[row, "source_sha256"] = hashlib.sha256(content).hexdigest()
        file = tmp_path / "source" / rows.loc[row, "source"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "source" / rows.loc[learnt[1], "source"]).unlink()
    (tmp_path / "source" / rows.loc[learnt[2], "source"]).write_bytes(data[0])
    dataset = dataset._replace(rows=rows)
    cache = tmp_path / "cache"
    cache.mkdir()
    found = leaks.learnt(dataset, cache)
    expected = [leaks.encoded(leaks.thumbnail(data[0])), "", "", ""]
    assert found.loc[found["source_sha256"].isin(rows.loc[learnt, "source_sha256"]), "thumbnail"].tolist() == expected
    assert (found["thumbnail"] != "").sum() == len(found) - 3
    shutil.rmtree(tmp_path / "source")
    pd.testing.assert_frame_equal(leaks.learnt(dataset, cache), found)


def test_of_a_set_without_originals_and_without_its_source_nothing_is_drawn(
    image_set: Callable[..., Path], tmp_path: Path
) -> None:
    """Every image augmented, the source folder gone: checksums and groups are all there is to go by."""
    dataset = datasets.read(image_set(), tmp_path)
    dataset = dataset._replace(rows=dataset.rows.assign(variant=1))
    cache = tmp_path / "cache"
    cache.mkdir()
    assert (leaks.learnt(dataset, cache)["thumbnail"] == "").all()


@pytest.mark.slow
def test_copies_of_real_xrays_are_known_and_other_xrays_are_not(xrays_224: Path, xrays_full: Path) -> None:
    """Smaller, larger, in another format or quality: the same picture. Of 2,000 X-rays no other is."""
    files = sorted(xrays_224.rglob("*.jpeg"))[::3]
    pictures = {hashlib.sha256(data).hexdigest(): data for data in (file.read_bytes() for file in files)}
    rows = pd.DataFrame({"split": "train", "source_sha256": list(pictures), "sha256": list(pictures)})
    rows = rows.assign(group_sha256="", thumbnail=[leaks.encoded(leaks.thumbnail(data)) for data in pictures.values()])
    one_of_two, others = leaks.Record.of(rows[::2].reset_index(drop=True)), list(pictures.values())[1::2]
    assert not any(one_of_two.known(data) for data in others)
    for data in list(pictures.values())[::40]:
        image = Image.open(io.BytesIO(data)).convert("L")
        for size, kind, options in (
            ((224, 224), "png", {}), ((224, 224), "jpeg", {"quality": 50}), ((112, 112), "png", {}),
            ((500, 400), "jpeg", {"quality": 80}), ((96, 96), "webp", {"quality": 80}),
        ):  # fmt: skip
            file = io.BytesIO()
            image.resize(size).save(file, kind, **options)
            assert one_of_two.known(file.getvalue()) == "train, the same pixels", (size, kind)
    for file in sorted(xrays_full.rglob("*.jpeg"))[::10]:  # a full-size original, by what a set makes of it
        small = io.BytesIO()
        Image.open(file).convert("L").resize((224, 224), Image.Resampling.BOX).save(small, "jpeg", quality=95)
        row = {"split": "train", "source_sha256": "", "sha256": "", "group_sha256": ""}
        record = leaks.Record.of(pd.DataFrame([row | {"thumbnail": leaks.encoded(leaks.thumbnail(small.getvalue()))}]))
        assert record.known(file.read_bytes()) == "train, the same pixels"


def test_damaged_thumbnails_are_drawn_again(run: Trained, tmp_path: Path) -> None:
    """Zeroed, in whole or in part, while the index is whole: the record is as it was, and a line says so."""
    dataset = datasets.read(tmp_path / "manifests" / "tiny.csv", tmp_path)
    before = (run.run / leaks.NAME).read_bytes()
    stored = tmp_path / "cache" / "thumbnails" / "0.bin"
    for zeroed in (stored.stat().st_size, 300):
        stored.write_bytes(stored.read_bytes()[:-zeroed] + bytes(zeroed))
        lines: list[str] = []
        leaks.write(run.run, dataset, tmp_path / "cache", lines.append)
        assert (run.run / leaks.NAME).read_bytes() == before
        assert re.search(r"thumbnails: damaged, so drawn again: the thumbnails of \d+ images", lines[0])


def test_a_shortened_record_is_not_believed(run: Trained, tmp_path: Path) -> None:
    """Cut at the end of a line, or deleted: an error, and not a run that learnt from little."""
    checksums.write(run.run)
    path = run.run / leaks.NAME
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    for harm in (lambda: None, path.unlink):
        harm()
        with pytest.raises(leaks.LeakError, match=r"trained_on\.csv is damaged: .*; train the run again"):
            evaluate(run, another(tmp_path, swapped), tmp_path)


def test_the_thumbnails_wait_for_another_run(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """While another process holds the cache, a line says so; then the record is written."""
    dataset = datasets.read(image_set(), tmp_path)
    cache = tmp_path / "cache"
    lines: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        waits.set()

    with ThreadPoolExecutor(1) as pool:
        with store.locked(cache):
            writing = pool.submit(leaks.write, tmp_path, dataset, cache, say)
            assert waits.wait(60)
            assert not writing.done()
        writing.result(60)
    assert "waiting for its end" in lines[0]
    assert leaks.read(tmp_path) is not None

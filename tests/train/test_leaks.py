"""What a run has learnt from is known again: by its source, its file, its pixels and its patients."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from manifests import contract
from train import dataset as datasets
from train import leaks
from train.cli import main

CLASSES = ("class0", "class1")
Rows = pd.DataFrame


def call(*words: object) -> Result:
    """Run a command of `train`."""
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def run(make_run: Callable[..., Path], image_set: Callable[..., Path], tmp_path: Path) -> Path:
    """An untrained model with the record of the set `tiny`, as `fit` writes it."""
    dataset = datasets.read(image_set(), tmp_path)
    folder = shutil.copytree(make_run(classes=CLASSES, threshold={"value": 0.5, "chosen_by": "hand"}), tmp_path / "run")
    settings = json.loads((folder / "settings.json").read_text())
    settings |= {"source": "source", "manifest": "manifests/tiny.csv", "manifest_sha256": dataset.sha256}
    (folder / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "cache").mkdir(exist_ok=True)
    leaks.write(folder, dataset, tmp_path / "cache")
    return folder


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
            "the same patient: 16",
        ),
    ],
    ids=["source", "file", "pixels", "patient"],
)
def test_images_that_were_learnt_from_are_refused(
    run: Path, tmp_path: Path, change: Callable[[Path, Rows], Rows], card: dict[str, str], reason: str
) -> None:
    """Whatever lies at the path of the run's own manifest by now; named, counted, and with the fix; in JSON too."""
    manifest = another(tmp_path, lambda rows: change(tmp_path, rows), **card)
    contract.write(tmp_path / "manifests" / "tiny.csv", contract.read(manifest), {"name": "tiny"})
    for options in ((), ("--json",)):
        result = call("evaluate", run, manifest, "--root", tmp_path, *options)
        assert result.exit_code == 2, result.output
        last = result.output.splitlines()[-1]
        assert "16 of its 16 test images" in last
        assert contract.read(manifest).query("split == 'test'")["path"].iloc[0] in last
        assert reason in last
        assert "--on-leak drop" in last
    assert (
        "learnt from all of its 16" in call("evaluate", run, manifest, "--root", tmp_path, "--on-leak", "drop").output
    )


def test_the_root_and_the_directory_do_not_matter(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From anywhere, and with the set's folder moved to another place."""
    manifest = another(tmp_path, swapped)
    monkeypatch.chdir("/")
    assert "the same source: 16" in call("evaluate", run, manifest, "--root", tmp_path).output
    moved = tmp_path / "moved"
    for name in ("data", "manifests"):
        shutil.move(tmp_path / name, moved / name)
    assert "the same source: 16" in call("evaluate", run, moved / "manifests" / "other.csv", "--root", moved).output


def test_the_rest_is_measured_if_leaks_are_dropped(run: Path, tmp_path: Path) -> None:
    """Half of the test images were trained on; the figures are those of the other half, and JSON says so."""

    def half(rows: Rows) -> Rows:
        odd = rows["split"].isin(["train", "test"]) & (rows["seed"] % 2 == 1)
        return rows.assign(split=np.where(odd, "test", "train"))

    manifest = another(tmp_path, half)
    rows = contract.read(manifest)
    learnt = set(contract.read(tmp_path / "manifests" / "tiny.csv").query("split != 'test'")["source_sha256"])
    seen = int((rows.query("split == 'test'")["source_sha256"].isin(learnt)).sum())
    assert 0 < seen < (rows["split"] == "test").sum()
    assert call("evaluate", run, manifest, "--root", tmp_path).exit_code == 2
    result = call("evaluate", run, manifest, "--root", tmp_path, "--on-leak", "drop", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["images"] == (rows["split"] == "test").sum() - seen
    assert found["leak_check"] == {"by": ["source", "file", "pixels", "patient"], "left_out": seen, "notes": []}
    assert (
        f"their patients: {seen} images"
        in call("evaluate", run, manifest, "--root", tmp_path, "--on-leak", "drop").output
    )


def test_the_runs_own_test_images_are_no_leak(run: Path, tmp_path: Path) -> None:
    """Nor are they if the set was built again under another name."""
    for manifest in (tmp_path / "manifests" / "tiny.csv", another(tmp_path, lambda rows: rows)):
        result = call("evaluate", run, manifest, "--root", tmp_path, "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["leak_check"]["left_out"] == 0


def test_another_hospitals_patients_may_be_called_alike(run: Path, tmp_path: Path) -> None:
    """Without an image in common and from another folder: measured, with a line; else refused, or as the user says."""

    def of_other_place(rows: Rows) -> Rows:
        return drawn_anew(tmp_path, renamed(rows).assign(group=rows["group"]), noise=True)

    manifest = another(tmp_path, of_other_place)
    result = call("evaluate", run, manifest, "--root", tmp_path)
    assert result.exit_code == 0, result.output
    assert "16 of its patients are called as patients that the run learnt from. They are taken for others" in (
        result.output
    )
    found = json.loads(call("evaluate", run, manifest, "--root", tmp_path, "--json").stdout)["leak_check"]
    assert found["by"] == ["source", "file", "pixels"]
    assert "called as patients" in found["notes"][0]
    unknown = another(tmp_path, lambda _: contract.read(manifest), "unknown", source="")
    result = call("evaluate", run, unknown, "--root", tmp_path)
    assert result.exit_code == 2
    assert "--other-patients says that these are others" in result.output.splitlines()[-1]
    result = call("evaluate", run, unknown, "--root", tmp_path, "--other-patients")
    assert result.exit_code == 0, result.output


def test_of_an_older_run_is_said_what_was_not_checked(run: Path, tmp_path: Path) -> None:
    """Its manifest stands in for the record, by its checksum; where that is another by now, nothing was checked."""
    (run / leaks.NAME).unlink()
    manifest = another(tmp_path, swapped)
    result = call("evaluate", run, manifest, "--root", tmp_path)
    assert result.exit_code == 2
    assert "the same source: 16" in result.output
    own = tmp_path / "manifests" / "tiny.csv"
    result = call("evaluate", run, own, "--root", tmp_path, "--json")
    found = json.loads(result.stdout)["leak_check"]
    assert found["by"] == ["source", "file", "patient"]
    assert found["notes"][0].startswith("Not checked by pixels")
    contract.write(own, contract.read(manifest), {"name": "tiny"})
    result = call("evaluate", run, own, "--root", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["leak_check"]
    assert found["by"] == []
    assert found["notes"][0].startswith("Not checked: whether the run learnt from these images")
    assert "Not checked: whether" in call("evaluate", run, own, "--root", tmp_path).output
    assert "Not checked: whether" in call("predict", run, tmp_path / "data").output


def test_predict_marks_what_was_learnt_from(run: Path, tmp_path: Path) -> None:
    """By its file, as a copy under another name, and by its pixels in another format; the test images are not marked."""
    rows = contract.read(tmp_path / "manifests" / "tiny.csv")
    folder = tmp_path / "loose"
    folder.mkdir()
    first = {split: tmp_path / rows[rows["split"] == split]["path"].iloc[0] for split in ("train", "val", "test")}
    for split, path in first.items():
        shutil.copyfile(path, folder / f"{split}.copy")
        Image.open(path).resize((150, 130)).save(folder / f"{split}.png")
    out = tmp_path / "out.csv"
    result = call("predict", run, folder, "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out, keep_default_na=False)
    marks = {Path(name).name: mark for name, mark in zip(table["file"], table["trained_on"], strict=True)}
    assert marks == {
        "test.copy": "",
        "test.png": "",
        "train.copy": "train, the same file",
        "train.png": "train, the same pixels",
        "val.copy": "val, the same file",
        "val.png": "val, the same pixels",
    }
    assert "4 of them the run has learnt from" in result.output


def test_the_record_names_no_patient_and_damage_is_one_line(run: Path, tmp_path: Path) -> None:
    """It holds checksums and tiny pictures; cut or altered it is named, with the fix."""
    text = (run / leaks.NAME).read_text()
    rows = contract.read(tmp_path / "manifests" / "tiny.csv")
    assert not any(group in text for group in rows["group"])
    for damage in (text[:-100], text.replace("thumbnail", "thumb"), text.replace("=\n", "\n"), ""):
        (run / leaks.NAME).write_text(damage)
        for words in (
            ("evaluate", run, tmp_path / "manifests" / "tiny.csv", "--root", tmp_path),
            ("predict", run, "x"),
        ):
            result = call(*words)
            assert result.exit_code == 2, result.output
            assert f"{run / leaks.NAME} is damaged" in result.output
            assert result.output.splitlines()[-1].endswith("train the run again")


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

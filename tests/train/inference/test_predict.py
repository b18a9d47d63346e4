"""Images from anywhere -> predictions, as a user asks for them."""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common.errors import escaped
from common.images.pixels import decode, decode_to
from manifests import contract
from train import tables
from train.cli import main
from train.evaluation import results
from train.evaluation.phase_metrics import to_json
from train.inference import files, predict, predictor


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run()


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def picture(seed: int = 0, size: tuple[int, int] = (90, 70)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def test_every_kind_of_image_is_predicted_as_what_it_shows(run: Path, tmp_path: Path) -> None:
    """One picture as 8-bit, 16-bit, RGBA, palette, CMYK and turned by EXIF gives nearly one probability."""
    gray = picture()
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = np.asarray(gray).astype(np.uint16) * 257
    folder = tmp_path / "images"
    folder.mkdir()
    gray.save(folder / "a.png")
    Image.fromarray(wide).save(folder / "b.png")
    gray.convert("RGBA").save(folder / "c.webp", lossless=True)
    gray.convert("P").save(folder / "d.gif")
    gray.convert("CMYK").save(folder / "e.tiff")
    gray.rotate(90, expand=True).save(folder / "f.jpg", quality=100, exif=turned)
    out = tmp_path / "out.csv"
    result = call(run, folder, "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out)
    assert [Path(name).name for name in table["file"]] == ["a.png", "b.png", "c.webp", "d.gif", "e.tiff", "f.jpg"]
    assert table["error"].isna().all()
    read = predictor.load(run)
    image = np.dstack([decode_to((folder / "a.png").read_bytes(), read.size)] * 3).astype(np.float32)
    np.testing.assert_allclose(table["p(PNEUMONIA)"], read.probabilities(image[None])[0, 1], atol=0.01)
    np.testing.assert_allclose(table["p(NORMAL)"] + table["p(PNEUMONIA)"], 1, atol=2e-6)


def test_deep_images_are_scaled_as_the_runs_set_was(run: Path, tmp_path: Path) -> None:
    """A run on a set with `value_range: [0, 4095]` takes a 12-bit picture in 16-bit samples for the 8-bit one it is."""
    run = Path(shutil.copytree(run, tmp_path / "run"))
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"value_range": [0, 4095]}))
    gray, folder = picture(), tmp_path / "images"
    folder.mkdir()
    gray.save(folder / "a.png")
    Image.fromarray(((np.asarray(gray).astype(np.uint32) * 4095 + 127) // 255).astype(np.uint16)).save(folder / "b.png")
    assert call(run, folder, "--out", tmp_path / "out.csv").exit_code == 0
    probabilities = pd.read_csv(tmp_path / "out.csv")["p(PNEUMONIA)"]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)


def test_what_cannot_be_read_has_a_row_with_the_reason(run: Path, tmp_path: Path) -> None:
    """Good files are predicted beside it, and the exit code is 0; if nothing is readable it is 1."""
    folder = tmp_path / "images"
    (folder / "deep" / "er").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    picture().save(folder / "deep" / "er" / "good.PNG")
    (folder / "bad.png").write_text("no image")
    (folder / "nothing.jpg").touch()
    (folder / "notes.txt").write_text("notes")
    (folder / ".hidden.png").write_text("no image")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("not read")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    out = tmp_path / "out.csv"
    result = call(run, folder, tmp_path / "missing.png", tmp_path / "empty", "--out", out)
    assert result.exit_code == 0, result.output
    assert "9 could not be read" in result.output
    table = pd.read_csv(out, keep_default_na=False)
    errors = {Path(name).name: error for name, error in zip(table["file"], table["error"], strict=True)}
    assert errors.pop("good.PNG") == ""
    for name in ("bad.png", "notes.txt"):
        assert errors.pop(name).startswith("not an image")
    assert errors == {
        ".hidden.png": "hidden",
        ".git": "hidden",
        "nothing.jpg": "empty file (0 bytes)",
        "gone.png": "not a regular file",
        "pipe.png": "not a regular file",
        "missing.png": "no such file or folder",
        "empty": "a folder without files",
    }
    nothing = call(run, folder / "bad.png")
    assert nothing.exit_code == 1
    assert "not an image of a known format" in nothing.output
    beside = call(run, folder / "bad.png", folder / "deep").output.splitlines()
    assert [len(beside[line].split()) for line in (0, 2)] == [5, 4]
    assert "nan" not in beside[1]


def test_what_is_an_image_its_content_says_and_not_its_name(run: Path, tmp_path: Path) -> None:
    """As when a set is built: .jfif, .pjpeg, no ending or a wrong one; what is none is named, junk of systems too."""
    folder = tmp_path / "images"
    folder.mkdir()
    names = ("a.jfif", "b.pjpeg", "c", "d.JPG", "e.dat", "1.2.840.113619")
    for name in names:
        picture().save(folder / name, "jpeg")
    junk = ("Thumbs.db", "desktop.ini", ".DS_Store", "notes.txt", "archive.zip")
    for name in junk:
        (folder / name).write_bytes(b"PK\x03\x04 no image")
    out = tmp_path / "out.csv"
    result = call(run, folder, "--out", out)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out, keep_default_na=False)
    assert {Path(name).name for name in table.loc[table["error"] == "", "file"]} == set(names)
    assert {Path(name).name for name in table.loc[table["error"] != "", "file"]} == set(junk)
    assert "5 could not be read" in result.output


def test_the_thresholds_side_decides_the_class(run: Path, tmp_path: Path) -> None:
    """With the threshold at 0 everything is the second class, at 1 the first, and the output says the rule."""
    copy = shutil.copytree(run, tmp_path / "run")
    picture().save(tmp_path / "a.png")
    for value, expected in ((0, "1 PNEUMONIA"), (1, "1 NORMAL")):
        (copy / "metrics.json").write_text(json.dumps({"frozen": {"threshold": {"value": value, "chosen_by": "v"}}}))
        result = call(copy, tmp_path / "a.png")
        assert expected in result.output
        assert f"PNEUMONIA from {value} on" in result.output


def test_names_stay_as_they_are_but_for_what_is_not_for_reading(tmp_path: Path) -> None:
    """A name that begins as a formula is kept; an end of line, a turn of direction or a byte that is no UTF-8 is escaped."""
    names = ["=1+1.png", "a\nb.png", "c\u202ed.png", os.fsdecode(b"e\xff.png"), "ä ö.png"]
    for name in names:
        (tmp_path / name).touch()
    printed_names = {escaped(str(entry.path.relative_to(tmp_path))) for entry in files.listed([tmp_path])}
    assert printed_names == {"=1+1.png", "a\\nb.png", "c\\u202ed.png", "e\\udcff.png", "ä ö.png"}
    table = pd.DataFrame({"file": sorted(printed_names), "error": ""})
    predict.write(tmp_path / "out.csv", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv", keep_default_na=False), table, check_dtype=False)


def test_a_file_named_twice_is_predicted_once(tmp_path: Path) -> None:
    """By itself and within its folder; folders come in the order given, their files sorted."""
    for name in ("b/2.png", "b/1.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    places = [tmp_path / "b", tmp_path / "a", tmp_path / "b" / "1.png"]
    found = [entry.path.relative_to(tmp_path).as_posix() for entry in files.listed(places)]
    assert found == ["b/1.png", "b/2.png", "a/1.png"]


def test_the_table_takes_no_other_files_place(run: Path, tmp_path: Path, image_set: Callable[..., Path]) -> None:
    """--out refuses what is no CSV, and any file but an earlier table, before anything is computed."""
    manifest = image_set()
    picture().save(tmp_path / "a.png")
    mine, folder = tmp_path / "mine.csv", tmp_path / "folder.csv"
    mine.write_text("file,label\na.png,1\n")
    folder.mkdir()
    files = (manifest, tmp_path / "a.png", mine)
    before = [path.read_bytes() for path in files]
    for out, message in (
        (tmp_path / "a.png", "ends in .csv"),
        *(
            (out, "is there already, and no table of predictions; give another name")
            for out in (manifest, mine, folder)
        ),
        (mine / "new.csv", "mine.csv is no folder; give another place"),
    ):
        result = call(run, tmp_path / "a.png", "--out", out)
        assert result.exit_code == 2
        assert message in result.output.splitlines()[-1]
    assert [path.read_bytes() for path in files] == before
    for _ in range(2):
        assert call(run, tmp_path / "a.png", "--out", tmp_path / "out.csv").exit_code == 0


def test_more_files_than_a_batch_come_in_order(run: Path, tmp_path: Path) -> None:
    """Each row has the probabilities of its own file, across batches and around unreadable files."""
    for number in range(70):
        picture(number, (64, 64)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "33.png").write_text("no image")
    read = predictor.load(run)
    steps: list[tuple[int, int]] = []
    table = predict.predict(read, files.listed([tmp_path]), lambda *step: steps.append(step))
    assert steps == [(32, 70), (64, 70), (70, 70)]
    assert table.loc[table["error"] != "", "file"].tolist() == [str(tmp_path / "33.png")]
    for number in (0, 32, 34, 69):
        image = np.dstack([np.asarray(picture(number, (64, 64)))] * 3).astype(np.float32)
        assert table["p(PNEUMONIA)"][number] == pytest.approx(read.probabilities(image[None])[0, 1], abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_predictions_of_a_sets_own_files_are_the_runs(image_set: Callable[..., Path], engine: str) -> None:
    """Given a set's val and test images, `predict` gives what predictions.csv has, and `evaluate` what metrics.json has.

    Whatever engine and precision trained, and of classes that look like numbers.
    """
    if engine == "openvino":
        pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    manifest = image_set(classes=("0", "1e5"), val=6, test=8)
    root = manifest.parent.parent
    short = ["--weights", "random", "--epochs", "2", "--fine-tune-epochs", "1", "--engine", engine, "--calibrate"]
    fitted = CliRunner().invoke(main, ["fit", str(manifest), *short, "--batch-size", "8", "--root", str(root)])
    assert fitted.exit_code == 0, fitted.output
    run = root / "runs" / "tiny"
    recorded = results.read(run).predictions.query("phase == 'fine-tuned'").reset_index(drop=True)
    result = call(run, *(root / path for path in recorded["path"]), "--out", root / "out.csv")
    assert result.exit_code == 0, result.output
    table = tables.read(root / "out.csv", {"file": str, "predicted": str, "p(0)": float, "p(1e5)": float})
    assert table["file"].tolist() == [str(root / path) for path in recorded["path"]]
    for name in ("p(0)", "p(1e5)"):
        np.testing.assert_allclose(table[name], recorded[name], atol=1e-5, rtol=0)
    assert table["trained_on"].tolist() == [
        "val, the same file" if split == "val" else "" for split in recorded["split"]
    ]
    of_test = recorded["split"] == "test"
    assert (table["predicted"] == recorded["predicted (chosen)"])[of_test].all()

    measured = CliRunner().invoke(main, ["evaluate", str(run), str(manifest), "--root", str(root), "--json"])
    assert measured.exit_code == 0, measured.output
    found, expected = json.loads(measured.stdout), to_json(results.read(run).metrics["fine-tuned"].test)
    assert found["auroc"] == expected["auroc"]
    assert found["brier"] == pytest.approx(expected["brier"], abs=1e-5)
    for point, decided in expected["decisions"].items():
        assert found["decisions"][point] == decided


@pytest.mark.slow
def test_leaving_out_the_builders_jpeg_changes_little(xrays_full: Path, make_run: Callable[..., Path]) -> None:
    """Real X-rays, resized only and resized and through a JPEG of quality 95: under 1 gray level on average, 0.005 in p."""

    def sharpen(dense: object) -> None:  # random weights alone would call every image the same
        dense.kernel.assign(dense.kernel * 20)

    read = predictor.load(make_run(size=(224, 224), head=sharpen))
    plain, written = [], []
    for path in sorted(xrays_full.rglob("*.jpeg"))[::20]:
        image = decode_to(path.read_bytes(), read.size)
        file = io.BytesIO(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        again = decode(file.getvalue())
        assert np.abs(image.astype(int) - again).mean() < 1
        plain.append(np.dstack([image] * 3).astype(np.float32))
        written.append(np.dstack([again] * 3).astype(np.float32))
    got, expected = read.probabilities(np.stack(plain)), read.probabilities(np.stack(written))
    assert np.ptp(expected[:, 1]) > 0.05, "images must differ, else this shows nothing"
    np.testing.assert_allclose(got, expected, atol=0.005)


def test_out_is_written_whole_or_not_at_all(run: Path, tmp_path: Path) -> None:
    """A folder that isn't there is made; nothing temporary is left beside the table."""
    picture().save(tmp_path / "a.png")
    assert call(run, tmp_path / "a.png", "--out", tmp_path / "new" / "out.csv").exit_code == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.csv"]
    assert contract.is_manifest(tmp_path / "new" / "out.csv") is False

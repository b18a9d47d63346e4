"""Where the evidence for a prediction lies."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.cli import main
from train.features import engine
from train.inference import cam, predictor

SIZE = 128


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(size=(SIZE, SIZE), threshold={"value": 0})  # a price: everything is PNEUMONIA


def bright_spot(classes: int = 2) -> predictor.Trained:
    """A model whose backbone is one feature map of brightness, and whose last class is what is bright."""
    images = keras.Input((SIZE, SIZE, 3), name="image")
    pixels = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.AveragePooling2D(16)(pixels)
    backbone = keras.Model(pixels, keras.layers.ReLU()(pooled), name="backbone")
    features = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocess")(images))
    outputs = 1 if classes == 2 else classes
    head = keras.layers.Dense(outputs, activation="sigmoid" if outputs == 1 else "softmax", name="head")
    model = keras.Model(images, head(keras.layers.GlobalAveragePooling2D(name="pool")(features)))
    kernel = np.zeros((3, outputs), np.float32)
    kernel[:, -1] = 500  # so sure that the probability has no gradient left
    head.kernel.assign(kernel)
    names = tuple(f"class{n}" for n in range(classes))
    forward = engine.compiled(model, engine.Engine("tensorflow", "float32"))
    return predictor.Trained(Path("run"), {}, model, names, (SIZE, SIZE), 0.5 if classes == 2 else None, forward)


def corner(rows: slice, columns: slice) -> np.ndarray:
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    image[rows, columns] = 255
    return image


@pytest.mark.parametrize("classes", [2, 3])
def test_the_heat_lies_where_the_evidence_is(classes: int) -> None:
    """A bright corner speaks for the class of what is bright: there the heat is 1, elsewhere 0, each image its own."""
    model = bright_spot(classes)
    images = np.stack([corner(slice(0, 16), slice(0, 32)), corner(slice(112, 128), slice(112, 128))])
    assert model.probabilities(images)[:, -1].min() == 1.0
    heat = cam.GradCam(model).heat(images, np.array([classes - 1] * 2))
    assert heat.shape == (2, 8, 8)
    assert heat[0].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], *[[0] * 8] * 7]
    assert heat[1].tolist() == [*[[0] * 8] * 7, [0] * 7 + [1]]


def test_what_speaks_against_a_class_is_no_heat() -> None:
    """For the other of two classes there is nothing in a bright corner, and no number is invented."""
    heat = cam.GradCam(bright_spot()).heat(corner(slice(0, 16), slice(0, 16))[None], np.array([0]))
    assert (heat == 0).all()


def test_on_a_resnet_it_is_the_class_activation_map(run: Path) -> None:
    """Behind pooling and a dense head, Grad-CAM is the maps weighted by the head's kernel, up to a factor."""
    read = predictor.load(run)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    features = read.backbone(images / 127.5 - 1, training=False).numpy()
    kernel = read.head.kernel.numpy()[:, 0]
    for index, sign in ((1, 1), (0, -1)):
        expected = np.maximum(features @ (sign * kernel), 0)
        expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-12)
        got = cam.GradCam(read).heat(images, np.array([index] * 2))
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_overlays_of_one_name_both_survive(run: Path, tmp_path: Path) -> None:
    """Two files of one name, hostile names and mathtext: each has its picture in the folder, and the table names it."""
    names = ["a/x.png", "b/x.png", "b/a_x.png", "a/$\\frac$..<b>.png", "a/=x\n.png", "a/" + "ä" * 100 + ".png"]
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = np.random.default_rng(number).integers(0, 256, (40, 160, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(path)
    (tmp_path / "images" / "a" / "bad.png").write_text("no image")
    words = ["predict", run, tmp_path / "images", "--cam", tmp_path / "cams", "--out", tmp_path / "out.csv"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    there = {path.name for path in (tmp_path / "cams").iterdir()}
    assert set(table["cam"]) == there | {""}
    assert len(there) == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cams", "images", "out.csv"]
    for name in there:
        with Image.open(tmp_path / "cams" / name) as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 1


def test_the_picture_has_the_images_own_aspect() -> None:
    """A wide image gives a wide picture, with both of its panels as wide as the image is; heat has colour."""
    file = io.BytesIO()
    Image.fromarray(np.full((300, 900), 128, np.uint8)).save(file, "PNG")
    heat = np.zeros((7, 7), np.float32)
    heat[0, 6] = 1
    drawn = np.asarray(
        Image.open(io.BytesIO(cam.figure(file.getvalue(), heat, "t", "c", (48, 48)))).convert("RGB")
    ).astype(int)
    gray = (np.abs(drawn - 128) <= 1).all(axis=2)
    columns = np.flatnonzero(gray.any(axis=0) & (gray.sum(axis=0) > 20))
    left = columns[: np.flatnonzero(np.diff(columns) > 3)[0] + 1]
    height = gray[:, left[len(left) // 2]].sum()
    assert len(left) / height == pytest.approx(3, rel=0.05)
    coloured = np.argwhere(np.ptp(drawn, axis=2) > 60)
    hot = coloured[coloured[:, 1] < drawn.shape[1] * 0.9]
    assert len(hot)
    rows = np.flatnonzero(gray.any(axis=1))
    assert hot[:, 0].max() < rows.mean(), "the heat is in the upper half"


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_file_name_never_leaves_its_folder(path: str, name: str) -> None:
    """Whatever the image is called: one part, no dot in front, short enough, and another path has another name."""
    given_path = path.encode(errors="replace").decode()
    made = cam.file_name(given_path, name)
    assert Path(made).name == made
    assert not made.startswith(".")
    assert len(made.encode()) <= 255
    assert made.isprintable()
    assert made != cam.file_name(given_path + "x", name)


def test_a_file_in_the_folders_place_is_one_line(run: Path, tmp_path: Path) -> None:
    """--cam that can't be a folder is named, with exit code 2."""
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.png")
    result = CliRunner().invoke(main, ["predict", str(run), str(tmp_path / "a.png"), "--cam", str(tmp_path / "a.png")])
    assert result.exit_code == 2
    assert "a.png" in result.output.splitlines()[-1]
    shutil.rmtree(tmp_path)

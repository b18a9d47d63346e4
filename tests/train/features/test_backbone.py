"""The backbone, its cut and the saved model."""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from train.features import backbone as model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return model.load_backbone("resnet50v2", "random", (64, 64), seed=0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)


@pytest.mark.parametrize("layers", [0, 1, 2, 5, 9, 40, 189])
def test_a_cut_backbone_gives_what_the_whole_gives(backbone: keras.Model, images: np.ndarray, layers: int) -> None:
    """Wherever it is cut, the tail on the frozen part's output equals the backbone on the images."""
    part = model.cut(backbone, layers)
    scaled = images / 127.5 - 1
    cut_activations = part.frozen(scaled, training=False)
    got = part.tail(cut_activations, training=False)
    got = got[0] if isinstance(got, list) else got
    np.testing.assert_allclose(got, backbone(scaled, training=False), atol=1e-5)


def test_the_studys_cut_crosses_two_tensors(backbone: keras.Model) -> None:
    """Before the last five layers the residual crosses too, and the relu without weights is left to the frozen part."""
    part = model.cut(backbone, 5)
    assert set(part.names) == {"conv5_block3_2_relu", "conv5_block2_out"}
    assert {weight.path for weight in part.tail.trainable_weights} == {
        "conv5_block3_3_conv/kernel",
        "conv5_block3_3_conv/bias",
        "post_bn/gamma",
        "post_bn/beta",
    }


def test_more_layers_than_there_are_is_refused(backbone: keras.Model) -> None:
    """The message says how many there are."""
    with pytest.raises(model.ModelError, match="has 189"):
        model.cut(backbone, 190)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_saved_model_takes_raw_images(
    backbone: keras.Model, images: np.ndarray, tmp_path: Path, classes: int
) -> None:
    """It loads in safe mode and does Keras's own preprocessing for ResNetV2 inside."""
    head = model.make_head(classes, seed=1)
    model.inference_model(backbone, head).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    features = backbone(keras.applications.resnet_v2.preprocess_input(images.copy()), training=False)
    expected = head(keras.ops.mean(features, axis=(1, 2)))
    np.testing.assert_allclose(loaded(images), expected, atol=1e-5)
    assert loaded.output.shape[1] == (1 if classes == 2 else 3)


def test_random_weights_follow_the_seed() -> None:
    """The same seed draws the same weights, another seed others."""
    digests = [model.digest(model.load_backbone("resnet50v2", "random", (32, 32), seed)) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_weights_file_is_loaded(backbone: keras.Model, tmp_path: Path) -> None:
    """--weights FILE gives just the weights in it."""
    backbone.save_weights(tmp_path / "some.weights.h5")
    loaded = model.load_backbone("resnet50v2", str(tmp_path / "some.weights.h5"), (64, 64), seed=9)
    assert model.digest(loaded) == model.digest(backbone)


def no_file(_path: Path, _whole: bytes) -> None:
    """Nothing is there."""


def text(path: Path, _whole: bytes) -> None:
    """Text."""
    path.write_text("weights")


def cut_short(path: Path, whole: bytes) -> None:
    """Half of a download."""
    path.write_bytes(whole[: len(whole) // 2])


def a_folder(path: Path, _whole: bytes) -> None:
    """A folder of that name."""
    path.mkdir()


def a_fifo(path: Path, _whole: bytes) -> None:
    """What would be waited for."""
    os.mkfifo(path)


def archive(path: Path, _whole: bytes) -> None:
    """NumPy's archive under another name."""
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def nested(path: Path, _whole: bytes) -> None:
    """Groups in groups, deeper than Python recurses."""
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("a")


def of_kind(path: Path, whole: bytes, value: object) -> None:
    """Its sixth array is of another kind of value."""
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
        shape = file[names[5]].shape
        del file[names[5]]
        file[names[5]] = np.full(shape, value)


WRONG = [no_file, text, cut_short, a_folder, a_fifo, archive, nested]
WRONG += [functools.partial(of_kind, value=value) for value in (b"x", 1 + 2j, np.nan, np.inf)]


@pytest.fixture(scope="module")
def whole(backbone: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A weights file as it should be."""
    path = tmp_path_factory.mktemp("weights") / "whole.weights.h5"
    backbone.save_weights(path)
    return path.read_bytes()


@pytest.mark.parametrize("ending", [".weights.h5", ".h5", ".keras", ""])
@pytest.mark.parametrize("make", WRONG)
def test_a_wrong_weights_file_is_one_line(
    backbone: keras.Model, whole: bytes, tmp_path: Path, make: Callable[[Path, bytes], None], ending: str
) -> None:
    """Whatever it is, under whatever name: the message is one line that names the file."""
    path = tmp_path / f"wrong{ending}"
    make(path, whole)
    with pytest.raises(model.ModelError, match=rf"--weights {path}: ") as caught:
        model._load(backbone, path)
    assert "\n" not in str(caught.value)


def test_the_weights_of_another_network_and_a_name_too_long_are_one_line(tmp_path: Path) -> None:
    """Those of a larger network are refused, and a name that no file can have is no traceback."""
    other = keras.applications.ResNet101V2(include_top=False, weights=None, input_shape=(32, 32, 3))
    other.save_weights(tmp_path / "wrong.weights.h5")
    for path in (tmp_path / "wrong.weights.h5", tmp_path / ("x" * 5000), Path("a\0b.h5")):
        with pytest.raises(model.ModelError, match="--weights ") as caught:
            model.load_backbone("resnet50v2", str(path), (64, 64), seed=0)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


def test_images_too_small_for_the_network_are_refused() -> None:
    """A ResNetV2 takes 32 x 32 and more."""
    with pytest.raises(model.ModelError, match="31 x 40"):
        model.load_backbone("resnet50v2", "random", (31, 40), seed=0)


def test_a_failing_download_names_the_ways_out(tmp_path: Path) -> None:
    """Where ImageNet's weights can't be downloaded, one line says so and names a file and random as ways out."""
    code = (
        "from train.features import backbone as model\n"
        "try:\n    model.load_backbone('resnet50v2', 'imagenet', (64, 64), 0)\n"
        "except model.ModelError as error:\n    print(error)\n"
    )
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_PROXY": "", "no_proxy": "", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if "can't be downloaded" in line]
    assert len(lines) == 1
    assert "--weights FILE" in lines[0]
    assert "--weights random" in lines[0]


class CutOff(BaseHTTPRequestHandler):
    """A server that promises a file and hangs up in the middle of it."""

    def do_GET(self) -> None:
        """Send the first half."""
        self.send_response(200)
        self.send_header("Content-Length", "2000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


def test_an_interrupted_download_leaves_no_weights_behind(tmp_path: Path) -> None:
    """What came of ImageNet's weights is not taken for them by the next run."""
    code = (
        "from keras.src.applications import resnet\n"
        "from train.features import backbone as model\n"
        "resnet.BASE_WEIGHTS_PATH = sys.argv[1]\n"
        "try:\n    model.load_backbone('resnet50v2', 'imagenet', (64, 64), 0)\n"
        "except model.ModelError as error:\n    print(error)\n"
    )
    server = HTTPServer(("127.0.0.1", 0), CutOff)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-c", f"import sys\n{code}", f"http://127.0.0.1:{server.server_port}/"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    server.shutdown()
    assert any("can't be downloaded" in line for line in done.stdout.splitlines()), done.stdout
    assert not list(tmp_path.rglob("*.h5"))

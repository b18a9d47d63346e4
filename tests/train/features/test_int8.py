"""The frozen layers in 8 bits."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import train
from train import dataset as datasets
from train.cli import main
from train.features import backbone, extract, int8
from train.features.engine import Engine
from train.features.forward import NetworkCache

pytest.importorskip("nncf", reason="python -m pip install -r requirements-int8.txt")
INT8, FLOAT32 = Engine("openvino", "int8"), Engine("openvino", "float32")


def nothing(*_: object) -> None:
    """Show no progress."""


def test_activations_are_near_those_in_float32_in_a_quarter_of_the_disk(
    xrays_set: Callable[..., Path], weights: Path, tmp_path: Path
) -> None:
    """Of real X-rays, 8 % off in the root mean square at most (4 % by arithmetic, 2 to 3 % by what is kept); the pooled output 4 %."""
    dataset = datasets.read(xrays_set(train=16, val=2, test=8), tmp_path)
    part = backbone.cut(backbone.load_backbone("resnet50v2", str(weights), dataset.size, 0), 5)
    rows, taken, sizes = np.arange(len(dataset.rows)), [], []
    for engine in (FLOAT32, INT8):
        found = extract.features(dataset, NetworkCache(part, "w", tmp_path / "c"), engine, nothing)
        assert found.cut_activations is not None
        taken.append([*found.cut_activations.take(rows), *found.pooled.take(rows)])
        of_tail, _ = extract.addresses(dataset, NetworkCache(part, "w", tmp_path / "c"), engine)
        sizes.append((of_tail.folder / "0.bin").stat().st_size)
    assert sizes[0] == 4 * sizes[1]
    assert [array.dtype.name for array in taken[1]] == ["bfloat16", "bfloat16", "float32"]
    for exact, rough, most in zip(*taken, (0.08, 0.08, 0.04), strict=True):
        off = rough.astype(np.float32) - exact
        assert np.sqrt(np.mean(off**2) / np.mean(exact**2)) < most


def test_calibration_goes_by_the_images_alone(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """The train images as they are, by checksum, whatever the manifest's order; other images are kept elsewhere."""
    dataset = datasets.read(image_set(train=10), tmp_path)
    dataset = dataset._replace(rows=dataset.rows.assign(variant=np.arange(len(dataset.rows)) % 2))
    of_train = dataset.rows[(dataset.rows["split"] == "train") & (dataset.rows["variant"] == 0)]
    assert int8.calibration(dataset)["sha256"].tolist() == sorted(of_train["sha256"])
    turned = dataset._replace(rows=dataset.rows[::-1].reset_index(drop=True))
    assert int8.digest(turned) == int8.digest(dataset)
    augmented = dataset._replace(rows=dataset.rows[dataset.rows["variant"] > 0])
    assert set(int8.calibration(augmented)["sha256"]) == set(augmented.of("train")["sha256"])
    assert int8.digest(augmented) != int8.digest(dataset)
    with pytest.raises(int8.Int8Error, match="there are none"):
        int8.calibration(dataset._replace(rows=dataset.of("val")))


def test_the_same_set_gets_the_same_network(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Calibrated and computed twice, to the same bits; kept or computed for each batch likewise."""
    dataset = datasets.read(image_set(train=12, size=64), tmp_path)
    part = backbone.cut(backbone.load_backbone("resnet50v2", "random", dataset.size, 0), 5)
    rows, found = np.random.default_rng(0).permutation(len(dataset.rows)), []
    for cache, limit in (("one", None), ("other", None), ("none", 0)):
        kept = extract.features(dataset, NetworkCache(part, "w", tmp_path / cache), INT8, nothing, limit=limit)
        assert kept.cut_activations is not None
        found.append([*kept.cut_activations.take(rows), *kept.pooled.take(rows)])
    assert all(np.isfinite(array.astype(np.float32)).all() for array in found[0])
    for other in found[1:]:
        assert all(np.array_equal(one, again) for one, again in zip(found[0], other, strict=True))


@pytest.mark.slow
def test_a_run_says_it_and_its_figures_are_the_saved_models(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Test is predicted by the float32 model, again by `predict`; a second run takes the activations up."""
    manifest = image_set(train=16, val=6, test=6, size=64)
    words = ["fit", str(manifest), "--root", str(tmp_path), "--weights", "random", "--precision", "int8"]
    words += ["--epochs", "1", "--fine-tune-epochs", "1"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "Calibrating the 8-bit network on 32 train images" in done.output
    assert "openvino int8" in done.output
    run = tmp_path / "runs" / manifest.stem
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["engine"], settings["precision"]) == ("openvino", "int8")
    assert {"openvino", "nncf"} <= settings["versions"].keys()
    predictions = pd.read_csv(run / "predictions.csv").query("split == 'test' and phase == 'fine-tuned'")
    again = train.predict(run, [tmp_path / path for path in predictions["path"]])
    (name,) = [name for name in predictions if name.startswith("p(")][-1:]
    np.testing.assert_allclose(again[name].to_numpy(float), predictions[name].to_numpy(float), atol=1e-5)
    other = CliRunner().invoke(main, [*words, "--learning-rate", "0.01", "--run", str(tmp_path / "other")])
    assert other.exit_code == 0, other.output
    assert "Calibrating" not in other.output
    assert "int8): 0 images computed" in other.output


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--engine", "tensorflow"), "--engine tensorflow computes in float32; leave it out, or --precision int8"),
        (("--cluster", "127.0.0.1:1"), "--precision int8 is computed on one machine; leave it out, or --cluster"),
    ],
)
def test_what_cannot_be_is_one_line(
    image_set: Callable[..., Path], tmp_path: Path, more: tuple[str, ...], expected: str
) -> None:
    """Of an engine without it, or a cluster."""
    words = ["fit", str(image_set(train=6, val=2, size=64)), "--root", str(tmp_path), "--weights", "random"]
    done = CliRunner().invoke(main, [*words, "--precision", "int8", *more])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1].endswith(expected)


def test_a_missing_package_is_named_with_how_to_get_it(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """In a process that has no NNCF."""
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'nncf' else find(name, *rest)\n"
        "from train.cli import main; main()"
    )
    words = [
        "fit",
        image_set(train=6, val=2, size=64),
        "--root",
        tmp_path,
        "--weights",
        "random",
        "--precision",
        "int8",
    ]
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nncf not installed; python -m pip install -r requirements-int8.txt" in done.stderr.splitlines()[-1]

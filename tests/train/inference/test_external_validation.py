"""A run measured on another set's test images."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from manifests import contract
from train.cli import main


def call(*words: object) -> Result:
    """Run a command of `train`."""
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.slow
def test_a_run_is_measured_on_another_sets_test_images(image_set: Callable[..., Path]) -> None:
    """On its own test images it has the figures of `fit`; images that it learnt from are refused, as others are."""
    manifest = image_set(train=6, val=4, test=6)
    root = manifest.parent.parent
    run = root / "runs" / "tiny"
    short = ("--weights", "random", "--epochs", 2, "--fine-tune-epochs", 0, "--engine", "tensorflow")
    assert call("fit", manifest, "--root", root, *short).exit_code == 0

    result = call("evaluate", run, manifest, "--root", root, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    expected = json.loads((run / "metrics.json").read_text())["frozen"]["test"]
    assert printed["auroc"] == expected["auroc"]
    assert printed["decisions"]["0.5"]["confusion"] == expected["decisions"]["0.5"]["confusion"]
    result = call("evaluate", run, manifest, "--root", root)
    assert "AUROC" in result.output
    assert "Not checked" not in result.output

    rows = contract.read(manifest)
    swapped = rows.assign(split=rows["split"].map({"train": "test", "test": "train", "val": "val"}))
    contract.write(root / "manifests" / "leaky.csv", swapped, contract.read_card(manifest))
    result = call("evaluate", run, root / "manifests" / "leaky.csv", "--root", root)
    assert result.exit_code == 2
    assert "12 of its 12 test images" in result.output
    assert "among those that the run learnt from" in result.output

    manifest.rename(manifest.with_name("moved.csv"))  # the run itself knows
    result = call("evaluate", run, root / "manifests" / "leaky.csv", "--root", root)
    assert result.exit_code == 2
    assert "among those that the run learnt from" in result.output

    for name, change, complaint in (
        ("none", {"split": "train"}, "has no test images"),
        ("labels", {"label": "class7", "split": "test"}, "has the class class7"),
        ("sizes", {"width": 32, "split": "test"}, r"images of (32, 64), the run takes (64, 64)"),
        ("gone", {"path": [f"data/nowhere/{n}.jpg" for n in range(len(rows))], "split": "test"}, "is missing"),
    ):
        contract.write(root / "manifests" / f"{name}.csv", pd.DataFrame(rows.assign(**change)), {"name": name})
        result = call("evaluate", run, root / "manifests" / f"{name}.csv", "--root", root)
        assert result.exit_code == 2, name
        assert complaint in result.output.splitlines()[-1], name


@pytest.mark.parametrize("harm", ["cut", "empty", "another size", "another image"])
def test_test_images_are_those_of_the_manifest(
    make_run: Callable[..., Path], image_set: Callable[..., Path], harm: str
) -> None:
    """One that was altered since is named in one line, and nothing is measured."""
    manifest = image_set(train=4, val=4, test=4)
    root = manifest.parent.parent
    path = root / contract.read(manifest).query("split == 'test'")["path"].iloc[0]
    if harm in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 200 if harm == "cut" else 0])
    else:
        side = 32 if harm == "another size" else 64
        Image.new("RGB", (side, side), "gray").save(path)
    run = make_run(classes=("class0", "class1"), threshold={"value": 0.5, "chosen_by": "hand"})
    result = call("evaluate", run, manifest, "--root", root, "--on-leak", "drop")
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == (
        f"Error: {path}: not the image in the manifest; `python -m augment verify` says more"
    )

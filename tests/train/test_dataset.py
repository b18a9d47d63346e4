"""Reading a manifest for training."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import contract
from train import dataset as datasets


def test_images_come_in_manifest_order_as_raw_rgb(image_set: Callable[..., Path]) -> None:
    """tf.data gives the files' own pixels, 0..255 on three channels, in the order that was asked for."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    paths = dataset.paths(dataset.rows)[::-1]
    got = np.concatenate([batch.numpy() for batch in datasets.images(paths, dataset.size, 3)])
    expected = np.stack([cv2.imread(str(path)) for path in paths])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_labels_are_indices_of_the_sorted_classes(image_set: Callable[..., Path]) -> None:
    """The second of two classes in alphabetical order is the positive one."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    assert dataset.classes == ("class0", "class1")
    assert [dataset.classes[index] for index in dataset.labels(dataset.rows)] == dataset.rows["label"].tolist()


@pytest.mark.parametrize(
    ("labels", "positive", "classes"),
    [
        (("COVID", "NORMAL"), None, ("NORMAL", "COVID")),
        (("COVID", "NORMAL"), "NORMAL", ("COVID", "NORMAL")),
        (("01", "02"), None, ("01", "02")),
        (("01", "02"), "01", ("02", "01")),
        (("NORMAL", "b", "a"), None, ("NORMAL", "a", "b")),
    ],
)
def test_the_positive_class_is_the_second_of_two(
    image_set: Callable[..., Path], labels: tuple[str, ...], positive: str | None, classes: tuple[str, ...]
) -> None:
    """By its name or as asked for; more classes are sorted, and none is the positive one."""
    manifest = image_set(classes=labels, train=1, val=1, test=1)
    dataset = datasets.read(manifest, manifest.parent.parent, positive)
    assert dataset.classes == classes
    assert dataset.positive == (classes[1] if len(classes) == 2 else None)
    assert [dataset.classes[index] for index in dataset.labels(dataset.rows)] == dataset.rows["label"].tolist()


@pytest.mark.parametrize(
    ("count", "message"), [(2, "--positive ill is .* 2: class0, class1"), (3, "3: class0, class1, class2")]
)
def test_a_positive_class_that_is_none_is_refused(image_set: Callable[..., Path], count: int, message: str) -> None:
    """The message names the option and the set's classes; with more than two none can be positive."""
    manifest = image_set(classes=count)
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.read(manifest, manifest.parent.parent, "ill" if count == 2 else "class1")


@pytest.mark.parametrize(
    ("classes", "recipe", "message"),
    [
        (2, {"keep_source_val": True}, "split anew (leave keep_source_val out of the recipe)"),
        (2, {"keep_source_val": False, "val": 0.1}, "than chance; give it a larger share (val in the recipe, now 0.1)"),
        (2, {"keep_source_val": False, "val": 0.2}, "is chosen, is little better than chance; collect more images, or give val a larger share (val in the recipe)"),
        (5, None, "training stops is little better than chance; collect more images, or give val a larger share (val in the recipe)"),
    ],
)  # fmt: skip
def test_what_is_said_of_validation_is_true_of_the_set(
    image_set: Callable[..., Path], classes: int, recipe: dict[str, object] | None, message: str
) -> None:
    """Of several classes no threshold is chosen, and a recipe that has no keep_source_val isn't to leave it out."""
    manifest = image_set(classes=classes, train=1, val=2, test=1)
    dataset = datasets.read(manifest, manifest.parent.parent)
    if recipe is not None:
        dataset = dataset._replace(card=dataset.card | {"recipe": recipe})
    (warning,) = datasets.warnings(dataset)
    assert warning.startswith(f"validation holds {2 * classes} images: ")
    assert warning.endswith(message)
    (_, augmented) = datasets.warnings(dataset._replace(rows=dataset.rows.assign(variant=1)))
    assert ("threshold" in augmented) == (classes == 2)


def test_a_manifest_that_is_not_as_built_is_noted(image_set: Callable[..., Path]) -> None:
    """Cut at the end of a line it is a valid manifest of fewer images: the checksum in its card says so."""
    manifest = image_set(train=60, val=60, test=2)
    assert datasets.warnings(datasets.read(manifest, manifest.parent.parent)) == []
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-3]))
    (warning,) = datasets.warnings(datasets.read(manifest, manifest.parent.parent))
    assert warning.startswith("the manifest is not as it was built: its card has another checksum")


def test_a_missing_image_is_named(image_set: Callable[..., Path]) -> None:
    """An image that was deleted is named before anything is computed."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    gone = dataset.paths(dataset.rows)[3]
    gone.unlink()
    with pytest.raises(datasets.DatasetError, match=str(gone)):
        datasets.read(manifest, manifest.parent.parent)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"classes": 1}, "1 class"),
        ({"val": 0}, "class class0 has no image in val"),
        ({"train": 0}, "no image in train"),
    ],
)
def test_a_set_that_nothing_can_be_learnt_from_is_refused(
    image_set: Callable[..., Path], counts: dict[str, int], message: str
) -> None:
    """One class only, or a class without train or val images, is an error that says which."""
    manifest = image_set(**counts)
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.read(manifest, manifest.parent.parent)


def test_a_set_of_another_root_says_which(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing is gone, so that building it again would help nobody."""
    manifest = image_set()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(datasets.DatasetError, match=rf"is missing; it lies under {tmp_path}: give --root {tmp_path}$"):
        datasets.read(manifest, tmp_path / "elsewhere")
    for path in (tmp_path / "data" / "tiny").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(datasets.DatasetError, match="build the set again"):
        datasets.read(manifest, tmp_path)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("keeps", [True, False, None])
def test_advice_on_validation_is_about_this_set(
    image_set: Callable[..., Path], tmp_path: Path, classes: int, keeps: bool | None
) -> None:
    """keep_source_val only where it is in the recipe, a threshold only where one is chosen."""
    dataset = datasets.read(image_set(classes=classes), tmp_path)
    dataset.card["recipe"] = None if keeps is None else {"keep_source_val": keeps, "val": 0.2}
    dataset = dataset._replace(rows=dataset.rows.assign(variant=1))
    small, augmented = datasets.warnings(dataset)
    assert small.startswith(f"validation holds {4 * classes} images: when training stops")
    assert ("keep_source_val" in small) == (keeps is True)
    assert ("give val a larger share" in small) == (keeps is not True)
    assert ("threshold" in small) == ("threshold" in augmented) == (classes == 2)


def test_an_image_that_leads_out_of_the_root_is_refused(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """A class folder of the set that is a link to somewhere else: refused by name, before anything is read."""
    root = tmp_path / "root"
    root.mkdir()
    manifest = image_set()
    for name in ("data", "manifests"):
        (tmp_path / name).rename(root / name)
    datasets.read(root / "manifests" / manifest.name, root)
    folder = root / "data" / "tiny" / "train" / "class0"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(contract.ContractError, match=r"leads out of .* through a symbolic link"):
        datasets.read(root / "manifests" / manifest.name, root)


@pytest.mark.parametrize(
    ("recipe", "fix"),
    [
        ({"val": 0}, "build the set with val above 0"),
        ({"val": 0.2, "keep_source_val": True}, "add some to the source's val folder, or leave keep_source_val out"),
        ({"val": 0.2, "keep_source_val": False}, "add images of that class, of other groups, to the source"),
        (None, "add images of that class, of other groups, to the source"),
    ],
)
def test_a_class_without_validation_images_is_named_with_what_would_mend_it(
    image_set: Callable[..., Path], tmp_path: Path, recipe: dict[str, object] | None, fix: str
) -> None:
    """The advice is true of the recipe that the set was built by."""
    manifest = image_set()
    rows, card = contract.read(manifest), contract.read_card(manifest)
    rows = rows[(rows["split"] != "val") | (rows["label"] != "class1")]
    contract.write(manifest, rows, card | {"recipe": recipe})
    with pytest.raises(datasets.DatasetError, match="class class1 has no image in val; " + re.escape(fix)):
        datasets.read(manifest, tmp_path)

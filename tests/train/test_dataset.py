"""Reading a manifest for training."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

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


def test_a_missing_image_is_named(image_set: Callable[..., Path]) -> None:
    """An image that was deleted is named before anything is computed."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    gone = dataset.paths(dataset.rows)[3]
    gone.unlink()
    with pytest.raises(datasets.DatasetError, match=str(gone)):
        datasets.read(manifest, manifest.parent.parent)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"classes": 1}, "1 class"),
        ({"val": 0}, "class class0 has no image in val"),
        ({"train": 0}, "no image in train"),
    ],
)
def test_a_set_that_nothing_can_be_learnt_from_is_refused(
    image_set: Callable[..., Path], counts: dict[str, int], told: str
) -> None:
    """One class only, or a class without train or val images, is an error that says which."""
    manifest = image_set(**counts)
    with pytest.raises(datasets.DatasetError, match=told):
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
    small, augmented = datasets.doubts(dataset)
    assert small.startswith(f"validation holds {4 * classes} images: when training stops")
    assert ("keep_source_val" in small) == (keeps is True)
    assert ("give val a larger share" in small) == (keeps is not True)
    assert ("threshold" in small) == ("threshold" in augmented) == (classes == 2)

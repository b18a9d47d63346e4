"""Manifest -> images and labels, by tf.data."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import UserError
from manifests import contract
from manifests.balance import unevenness
from train import positive as positives

if TYPE_CHECKING:
    import tensorflow as tf


class DatasetError(UserError):
    """The manifest's images can't be trained on; the message names what is wrong and the fix."""


class Dataset(NamedTuple):
    """A set as training sees it.

    `rows` are the manifest's. `classes` are its labels, sorted, but of two the second is the positive one, and `reason`
    says why. `size` is (width, height) of every image. `sha256` is that of the manifest file.
    """

    rows: pd.DataFrame
    card: dict[str, Any]
    classes: tuple[str, ...]
    size: tuple[int, int]
    root: Path
    sha256: str
    reason: str = ""

    @property
    def positive(self) -> str | None:
        """The positive one of two classes."""
        return self.classes[1] if len(self.classes) == 2 else None

    @property
    def group_name(self) -> str:
        """What its recipe calls a group: patient, say."""
        return contract.group_name(self.card.get("recipe"))

    @property
    def is_sample(self) -> bool:
        """Whether it was built from the built-in sample."""
        return str(self.card.get("notice") or "").startswith(contract.SAMPLE_NOTICE)

    def of(self, split: str) -> pd.DataFrame:
        """The rows of one split."""
        return self.rows[self.rows["split"] == split]

    @property
    def is_held_out(self) -> NDArray[np.bool_]:
        """Which rows are not trained on: those of val and test."""
        return self.rows["split"].isin(["val", "test"]).to_numpy()

    def labels(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """The class of each row, as its index in `classes`."""
        return rows["label"].map({name: index for index, name in enumerate(self.classes)}).to_numpy(np.int64)

    def paths(self, rows: pd.DataFrame) -> list[Path]:
        """The image file of each row."""
        return [self.root / path for path in rows["path"]]


def read(manifest: Path, root: Path, positive: str | None = None, *, pooled: bool = False) -> Dataset:
    """Read a manifest for training.

    Args:
        manifest: its file.
        root: what its paths are relative to.
        positive: the positive one of two classes; None: the one that `train.positive` chooses by the names.
        pooled: whether val is pooled with train, so that a class needs no images in both.

    Raises:
        ContractError: the manifest breaks the contract, or a link leads out of the root.
        DatasetError: an image is missing, images differ in size, a class or split has no images to learn from, or
            `positive` is none of two classes.
    """
    rows, card = contract.read(manifest), contract.read_card(manifest)
    classes = tuple(sorted(rows["label"].unique()))
    if len(classes) < 2:
        raise DatasetError(f"{manifest}: found {len(classes)} class ({', '.join(classes)}), training needs at least 2")
    for splits in (("train", "val"),) if pooled else (("train",), ("val",)):
        for label in classes:
            if not (rows["split"].isin(splits) & (rows["label"] == label)).any():
                raise DatasetError(
                    f"{manifest}: class {label} has no image in {' or '.join(splits)}; {_fix_for_absence(card, splits[0])}"
                )
    sizes = sorted(set(zip(rows["width"].tolist(), rows["height"].tolist(), strict=True)))
    if len(sizes) > 1:
        raise DatasetError(f"{manifest}: images of {len(sizes)} sizes ({sizes[0]}, {sizes[1]}, ...), expected one")
    classes, reason = _in_order(classes, positive, manifest)
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    dataset = Dataset(rows, card, classes, sizes[0], root, sha256, reason)
    expect_files(dataset, manifest)
    contract.expect_inside(root, rows["path"], manifest)
    return dataset


def _in_order(classes: tuple[str, ...], positive: str | None, manifest: Path) -> tuple[tuple[str, ...], str]:
    """The classes, of two the positive one last, and why it is the positive one."""
    if positive is not None and (len(classes) > 2 or positive not in classes):
        raise DatasetError(
            f"{manifest}: --positive {positive} is for one of two classes; the set has {len(classes)}: {', '.join(classes)}"
        )
    return positives.choose((classes[0], classes[1]), positive) if len(classes) == 2 else (classes, "")


def _fix_for_absence(card: dict[str, Any], split: str) -> str:
    """What puts images of a class into a split, by the recipe that the set was built by."""
    recipe = card.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    if split == "val" and recipe.get("val") == 0 and not recipe.get("keep_source_val"):
        return "build the set with val above 0"
    if split == "val" and recipe.get("keep_source_val"):
        return "add some to the source's val folder, or leave keep_source_val out of the recipe and build the set again"
    return f"add images of that class, of other {contract.group_name(recipe)}s, to the source, and build the set again"


def expect_files(dataset: Dataset, manifest: Path) -> None:
    """See that every image is there.

    Raises:
        DatasetError: one is not.
    """
    for path in dataset.rows["path"]:
        if not os.path.isfile(f"{dataset.root}/{path}"):  # noqa: PTH113  # a Path is made 20 times slower than it is asked for
            raise DatasetError(f"{manifest}: {dataset.root / path} is missing; {_remedy(path, manifest)}")


def expect_image(path: Path, sha256: str) -> None:
    """See that an image is the one in the manifest.

    Raises:
        DatasetError: it can't be read, or is another.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; build the set again (it renders only what is gone)") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DatasetError(f"{path}: not the image in the manifest; `python -m augment verify` says more")


def _remedy(path: str, manifest: Path) -> str:
    """What to do about an image that isn't where it is looked for: most often the root is another one."""
    for root in manifest.resolve().parents:
        if (root / path).is_file():
            return f"it lies under {root}: give --root {root}"
    return "build the set again (it renders only what is gone), or give --root, the folder that it was built in"


def warnings(dataset: Dataset, *, pooled: bool = False) -> list[str]:
    """What to know of a set before training on it, and what mends it; `pooled` as for `read`."""
    val = dataset.of("val")
    variants = int((val["variant"] > 0).sum())
    decided = "when training stops" + (", and which threshold is chosen," if dataset.positive is not None else "")
    recipe = dataset.card.get("recipe")
    share = recipe.get("val") if isinstance(recipe, dict) else None
    found = unevenness(dataset.rows)
    if dataset.card.get("manifest_sha256", dataset.sha256) != dataset.sha256:
        found.append(
            "the manifest is not as it was built: its card has another checksum; if nobody changed it on purpose, "
            "`python -m augment verify` says what is wrong, and --repair mends it"
        )
    if pooled:
        return found
    if (dataset.rows["split"] != "test").all():
        found.append(
            "the set has no test images: figures are of the validation images, which decide when training stops, and so are too "
            "good; give test a share (test: 0.2 in the recipe)"
        )
    if len(val) < 100:
        if isinstance(recipe, dict) and recipe.get("keep_source_val"):
            fix = "; pool val with train and split anew (leave keep_source_val out of the recipe)"
        elif isinstance(share, (int, float)) and share < 0.2:
            fix = f"; give it a larger share (val in the recipe, now {share:g})"
        else:
            fix = "; collect more images, or give val a larger share (val in the recipe)"
        found.append(f"validation holds {len(val)} images: {decided} is little better than chance{fix}")
    if variants:
        found.append(
            f"{variants:,} of the {len(val):,} validation images are augmented: {decided} goes by images that differ "
            "from the test images as the train images do; put `augment: [train]` into the recipe"
        )
    return found


def images(paths: list[Path], size: tuple[int, int], batch_size: int) -> "tf.data.Dataset":
    """Batches of float32 images, shape (batch, height, width, 3), values 0..255, in the order of `paths`."""
    import tensorflow as tf

    width, height = size

    def load(path: tf.Tensor) -> tf.Tensor:
        # The default transform is a fast one, up to 5 gray levels off what all other decoders give.
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(tf.cast(image, tf.float32), (height, width, 3))

    served = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    served = served.map(load, num_parallel_calls=os.cpu_count(), deterministic=True).batch(batch_size).prefetch(2)
    return served.with_options(untuned())


def untuned() -> "tf.data.Options":
    """Options without autotuning, for whose next round the end of a pass or an epoch else waits.

    Its rounds come 10, 20, 40, ... ms apart, so that a pass of 56 s often takes 82.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return options

"""Activations that are computed once and kept."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from train import dataset as datasets
from train import features, model


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return model.load_backbone("resnet50v2", "random", (64, 64), seed=0)


def test_activations_are_those_of_the_frozen_part_and_are_reused(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """They equal a pass over the images, and a second call reads the same from disk without computing."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    part = model.cut(backbone, 5)
    seen: list[tuple[int, int]] = []
    first = features.features(dataset, part, "weights", tmp_path / "cache", 5, lambda *step: seen.append(step))
    second = features.features(dataset, part, "weights", tmp_path / "cache", 5, lambda *step: seen.append(step))
    images = np.concatenate([b.numpy() for b in datasets.images(dataset.paths(dataset.rows), dataset.size, 8)])
    expected = part.frozen(images / 127.5 - 1, training=False)
    for array, again, wanted in zip(first.crossing, second.crossing, expected, strict=True):
        np.testing.assert_allclose(array, wanted, atol=1e-4)
        np.testing.assert_array_equal(array, again)
    pooled = keras.ops.mean(backbone(images / 127.5 - 1, training=False), axis=(1, 2))
    np.testing.assert_allclose(first.pooled, pooled, atol=1e-4)
    assert (first.reused, second.reused) == (False, True)
    assert seen[-1] == (len(dataset.rows), len(dataset.rows))
    assert len(seen) == -(-len(dataset.rows) // 5), "the second call computed something"


def test_other_images_weights_or_cuts_are_not_mixed_up(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """What is kept goes by the images' checksums, the weights and the cut."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    other = datasets.read(image_set(train=7, name="other"), manifest.parent.parent)
    for of_set, layers, weights in ((dataset, 5, "a"), (dataset, 5, "b"), (dataset, 2, "a"), (other, 5, "a")):
        part = model.cut(backbone, layers)
        kept = features.features(of_set, part, weights, tmp_path / "cache", 8, lambda *_: None)
        assert not kept.reused
        assert len(kept.pooled) == len(of_set.rows)


def test_an_interrupted_pass_leaves_nothing_that_looks_finished(
    image_set: Callable[..., Path], backbone: keras.Model, tmp_path: Path
) -> None:
    """Ctrl-C in the middle leaves no activations behind, and the next call computes them."""
    manifest = image_set()
    dataset = datasets.read(manifest, manifest.parent.parent)
    part = model.cut(backbone, 5)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.features(dataset, part, "weights", tmp_path / "cache", 4, interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    assert not features.features(dataset, part, "weights", tmp_path / "cache", 4, lambda *_: None).reused

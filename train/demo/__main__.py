"""Pretrain the demo's backbone: which of ten shapes and textures does an image show?

    python -m train.demo train/demo/demo.weights.h5

It draws the images, trains for about twenty minutes on two cores, and prints the AUROC of each kind on images that it
wasn't trained on. Another machine or another TensorFlow gives weights that differ a little.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from train.demo import shapes
from train.demo.network import network

_IMAGES, _HELD_OUT, _EPOCHS = 24_000, 1_000, 6
_BATCH, _RATE = 64, 3e-3


def drawn(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """So many images, (count, SIZE, SIZE, 1), and what each shows, (count, kinds), 0 or 1."""
    made = [shapes.draw(np.random.default_rng((seed, number))) for number in range(count)]
    return np.stack([image for image, _ in made])[..., None], np.stack([shown for _, shown in made]).astype(np.float32)


def pretrain(count: int, epochs: int) -> tuple[keras.Model, keras.Model]:
    """The backbone trained on `count` images, and the whole that was: images, (n, SIZE, SIZE, 1), to a score a kind."""
    images, shown = drawn(count, seed=0)
    keras.utils.set_random_seed(0)
    backbone = network(include_top=False, weights=None, input_shape=(shapes.SIZE, shapes.SIZE, 3))
    gray = keras.Input((shapes.SIZE, shapes.SIZE, 1))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(gray)
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(keras.layers.Concatenate()([scaled] * 3)))
    model = keras.Model(gray, keras.layers.Dense(len(shapes.KINDS), activation="sigmoid")(pooled))
    steps = epochs * -(-count // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=_RATE, warmup_steps=steps // 10)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4), "binary_crossentropy", jit_compile=False)
    model.fit(images, shown, batch_size=_BATCH, epochs=epochs, verbose=2)
    return backbone, model


def main() -> None:
    """Draw, train, measure, and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m train.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="where the weights go; the name ends in .weights.h5")
    out = parser.parse_args().out
    if not out.name.endswith(".weights.h5") or not out.absolute().parent.is_dir():  # before twenty minutes are spent
        parser.error(f"{out}: give a name that ends in .weights.h5, in a folder that exists")
    backbone, model = pretrain(_IMAGES, _EPOCHS)
    images, shown = drawn(_HELD_OUT, seed=1)
    for kind, truth, score in zip(shapes.KINDS, shown.T, model.predict(images, verbose=0).T, strict=True):
        print(f"{kind.__name__:>12}  AUROC {roc_auc_score(truth, score):.3f}")  # noqa: T201  # a script
    backbone.save_weights(out)


if __name__ == "__main__":
    main()

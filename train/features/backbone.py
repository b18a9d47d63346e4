"""The network: a ResNetV2 backbone, cut where fine-tuning begins, and a dense head."""

import hashlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from common.errors import UserError
from train.demo import network as demo

BACKBONES = {
    demo.NAME: demo.network,  # for the built-in sample only
    "resnet50v2": keras.applications.ResNet50V2,
    "resnet101v2": keras.applications.ResNet101V2,
    "resnet152v2": keras.applications.ResNet152V2,
}


class ModelError(UserError):
    """The network can't be made; the message names the weights and the ways out."""


class Cut(NamedTuple):
    """A backbone in two: `tail(frozen(images))` is what the whole gives.

    `frozen` maps preprocessed images to the tensors that cross the cut, `tail` these to the backbone's output.
    Both share the backbone's layers, so training the tail trains the backbone.
    """

    frozen: keras.Model
    tail: keras.Model
    names: tuple[str, ...]  # of the layers whose outputs cross


def load_backbone(name: str, weights: str, size: tuple[int, int], seed: int) -> keras.Model:
    """A ResNetV2 without its top.

    Args:
        name: one of BACKBONES.
        weights: `imagenet` (downloaded by Keras), `demo` (the demo network's own), `random` (drawn from `seed`) or a weights
            file.
        size: (width, height) of the images.
        seed: what random weights are drawn from.

    Raises:
        ModelError: the download fails, the file is missing or holds other weights, or the images are too small.
    """
    keras.utils.set_random_seed(seed)
    width, height = size
    if min(size) < 32:
        raise ModelError(
            f"the images are {width} x {height}, a ResNetV2 takes 32 x 32 and more; build the set with another size"
        )
    backbone: keras.Model
    shape = (height, width, 3)
    try:
        if weights == "imagenet":
            backbone = BACKBONES[name](include_top=False, weights="imagenet", input_shape=shape)
        else:
            backbone = BACKBONES[name](include_top=False, weights=None, input_shape=shape)
            if weights != "random":
                _load(backbone, demo.WEIGHTS if weights == demo.NAME else Path(weights))
    except ModelError:
        raise
    except Exception as error:  # urllib's, Keras's and TensorFlow's own, by version
        if weights != "imagenet":
            raise
        raise ModelError(
            f"the ImageNet weights of {name} can't be downloaded ({_first_line(error)}); "
            "give --weights FILE (their .h5 file from elsewhere) or --weights random"
        ) from None
    return backbone


def _load(backbone: keras.Model, path: Path) -> None:
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file can have: too long, say
        there = False
    if not there:
        raise ModelError(f"--weights {str(path)[:300]}: no such file; give a weights file, imagenet or random")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers that the file has no weights for
            warnings.simplefilter("error", np.exceptions.ComplexWarning)  # of complex numbers half is left out
            backbone.load_weights(path)
    except Exception as error:  # h5py's OSError and KeyError, Keras's ValueError and TypeError
        raise ModelError(f"--weights {path}: no weights of {backbone.name}: {_first_line(error)}") from None
    for weight in backbone.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ModelError(f"--weights {path}: {weight.path} holds numbers that are not finite; get the file again")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def digest(backbone: keras.Model) -> str:
    """SHA-256 of a backbone's weights, which is what its activations go by."""
    state = hashlib.sha256(backbone.name.encode())
    for weight in backbone.weights:
        state.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return state.hexdigest()


def cut(backbone: keras.Model, layers: int) -> Cut:
    """Cut a backbone before its last `layers` layers, wherever tensors cross.

    Layers without weights right behind the cut are left to the frozen part: it makes no difference to what is
    learnt, and a relu's output is computed once instead of every epoch.

    Args:
        backbone: a functional model with one input and one output, each of its layers used once.
        layers: how many of the last layers are to be trained; 0 leaves nothing to the tail.

    Raises:
        ModelError: the backbone has fewer layers than that.
    """
    inner = backbone.layers[1:]  # without the input layer
    if layers > len(inner):
        raise ModelError(f"--fine-tune-layers {layers}: {backbone.name} has {len(inner)}")
    maker = {id(layer.output): layer for layer in backbone.layers}
    tail = {layer.name for layer in inner[len(inner) - layers :]}
    for layer in inner:  # in the order of the graph
        if layer.name in tail and not layer.weights and not {maker[id(x)].name for x in _inputs(layer)} & tail:
            tail.remove(layer.name)
    wanted = [x for layer in inner if layer.name in tail for x in _inputs(layer)] or [backbone.output]
    cut_activations = list({id(x): x for x in wanted if maker[id(x)].name not in tail}.values())
    names = tuple(maker[id(x)].name for x in cut_activations)
    # A model needs a layer between input and output, which either part may lack.
    if cut_activations[0] is backbone.input:
        return Cut(keras.Model(backbone.input, keras.layers.Identity()(backbone.input)), backbone, names)
    if cut_activations[0] is backbone.output:
        features = keras.Input(backbone.output.shape[1:])
        return Cut(backbone, keras.Model(features, keras.layers.Identity()(features)), names)
    return Cut(keras.Model(backbone.input, cut_activations), keras.Model(cut_activations, backbone.output), names)


def _inputs(layer: keras.Layer) -> list[keras.KerasTensor]:
    return layer.input if isinstance(layer.input, list) else [layer.input]


def side_by_side(part: Cut, members: list[list[NDArray[Any]]]) -> Cut:
    """The backbone with several tails behind the one frozen part, their outputs one after the other in the channels.

    Args:
        part: the backbone, cut.
        members: of each tail the weights.
    """
    given = [keras.Input(x.shape[1:]) for x in part.tail.inputs]
    outputs = []
    for number, weights in enumerate(members, 1):
        clone = keras.models.clone_model(part.tail)
        clone.set_weights(weights)
        member = keras.Model(clone.inputs, clone.outputs, name=f"member_{number}")
        outputs += keras.tree.flatten(member(given if len(given) > 1 else given[0]))
    tail = keras.Model(given, keras.layers.Concatenate(name="members")(outputs), name="tails")
    return Cut(part.frozen, tail, part.names)


def joined(part: Cut, name: str) -> keras.Model:
    """A cut backbone as one network again."""
    return keras.Model(part.frozen.input, part.tail(part.frozen.output), name=name)


def make_head(classes: int, seed: int) -> keras.Layer:
    """The dense head: one sigmoid for two classes, a softmax for more."""
    initializer = keras.initializers.GlorotUniform(seed=seed)
    if classes == 2:
        return keras.layers.Dense(1, activation="sigmoid", kernel_initializer=initializer, name="head")
    return keras.layers.Dense(classes, activation="softmax", kernel_initializer=initializer, name="head")


def apply_temperature(head: keras.Layer, temperature: float) -> None:
    """Divide the head's logits by a temperature, by dividing its weights."""
    head.set_weights([weight / temperature for weight in head.get_weights()])


def strategy() -> tf.distribute.Strategy:
    """Every GPU there is takes a share of each batch; logical CPU devices, where somebody made several, do too."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def preprocess(images: "keras.KerasTensor") -> "keras.KerasTensor":
    """0..255 to [-1, 1], as ResNetV2's `preprocess_input` does, as a layer that is saved with the model."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocess")(images)


def inference_model(backbone: keras.Model, head: keras.Layer) -> keras.Model:
    """The model that is saved: float images 0..255, shape (batch, height, width, 3), to probabilities.

    Its backbone is frozen, so that batch norm keeps its statistics if somebody trains it further.
    """
    backbone.trainable = False
    images = keras.Input(backbone.input.shape[1:], name="image")
    features = backbone(preprocess(images))
    return keras.Model(images, head(keras.layers.GlobalAveragePooling2D(name="pool")(features)), name="evenset")

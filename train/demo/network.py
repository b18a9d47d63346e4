"""The demo's backbone: a ResNetV2 that is small enough to lie, pretrained, beside the code."""

from pathlib import Path

import keras

NAME = "demo"
WEIGHTS = Path(__file__).with_name("demo.weights.h5")
_STACKS = ((16, 2), (32, 2), (64, 1))  # filters of the bottleneck and stride of each two blocks


def network(include_top: bool, weights: None, input_shape: tuple[int, int, int]) -> keras.Model:
    """The backbone with random weights, called as those of `keras.applications` are: 234,048 weights.

    It takes float32 images from -1 to 1, (batch, height, width, 3), and gives (batch, height / 16, width / 16, 256).
    """
    from keras.src.applications import resnet  # Keras has its ResNetV2's blocks in no public place

    def stacks(x: keras.KerasTensor) -> keras.KerasTensor:
        for number, (filters, stride) in enumerate(_STACKS, start=2):
            x = resnet.stack_residual_blocks_v2(x, filters, 2, stride, name=f"conv{number}")
        return x

    return resnet.ResNet(
        stacks,
        preact=True,
        use_bias=True,
        name=NAME,
        weights=weights,
        include_top=include_top,
        input_shape=input_shape,
    )

"""A small pretrained ResNetV2 for the built-in sample: the network, and the shapes that it was pretrained on."""

"""What a run is decided by, beside the set: the options of `fit` and their defaults."""

from dataclasses import dataclass

# What is said of the demo's network wherever a run with it is shown.
DEMO = (
    "The demo's backbone is a small network that was pretrained on shapes drawn by a program. It is there to show, "
    "quickly and offline, how Evenset works."
)

ENGINES = ("auto", "tensorflow", "openvino")
PRECISIONS = ("auto", "int8")  # of the frozen layers
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("none", "cosine", "plateau")
DECAY = 0.004  # of AdamW's weights: Keras's default
MOMENTUM = 0.9  # SGD's, without Nesterov's: as ResNets were trained first
PLATEAU_FACTOR = 0.5  # by which the schedule `plateau` lowers the learning rate


@dataclass(frozen=True)
class Settings:
    """What a run is decided by, beside the set and the backbone's weights."""

    backbone: str = "resnet50v2"
    weights: str = "imagenet"
    epochs: int = 10
    fine_tune_epochs: int = 10
    fine_tune_layers: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3
    fine_tune_learning_rate: float = 1e-5
    optimizer: str = "adam"
    schedule: str = "none"
    patience: int = 3
    label_smoothing: float = 0.0
    dropout: float = 0.0
    class_weight: str = "none"
    calibrate: bool = False
    sensitivity: float | None = None
    seed: int = 0
    folds: int = 0
    repeats: int = 1

    def __post_init__(self) -> None:
        """The demo network's weights are its own, not ImageNet's."""
        if self.backbone == "demo" and self.weights == "imagenet":
            object.__setattr__(self, "weights", "demo")

"""For TensorBoard, of a run beside its training: its figures, its numbers, and its settings as hyperparameters."""

from pathlib import Path

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from train.evaluation.metrics import RANKED
from train.evaluation.results import Finished


def write(run: Finished, figures: dict[str, bytes], folder: Path) -> None:
    """Add to the logs in `folder`/tensorboard.

    Args:
        run: as it was just finished.
        figures: its figures as PNGs, by name.
        folder: where it is; its PNGs are taken over.
    """
    pictures = {f"figures/{name}": data for name, data in figures.items()}
    pictures |= {f"images/{path.stem}": path.read_bytes() for path in sorted(folder.glob("*.png"))}
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with writer.as_default():
        hparams.hparams(
            {name: value for name, value in run.settings.items() if isinstance(value, (bool, int, float, str))}
        )
        for step, of_phase in enumerate(run.metrics.values()):  # 0: frozen, 1: fine-tuned
            numbers = {name: getattr(of_phase.measured, name) for name in RANKED}
            for point, decided in of_phase.measured.decisions.items():
                numbers |= {f"{name} ({point})": getattr(decided, name) for name in ("accuracy", "balanced_accuracy")}
            for name, figure in numbers.items():
                if figure.value is not None:
                    tf.summary.scalar(f"{of_phase.split}/{name}", figure.value, step=step)
        for name, data in pictures.items():
            tf.summary.image(name, tf.io.decode_png(data, channels=3)[None], step=0)
    writer.close()

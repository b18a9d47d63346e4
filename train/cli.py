"""The command line of `train`: wires the stages together, prints, and turns errors into one line."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

# The stages are imported inside the commands: `--help` should answer in a blink, and TensorFlow takes seconds.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train a ResNetV2 on a manifest's images, frozen and then fine-tuned, and compare what came of it.

    No medical device: nothing that it trains may be used on patients.

    \b
    Example:
      python -m train fit manifests/augment1.csv
    """


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--run", "run", type=click.Path(path_type=Path), help="Where the results go.  [default: runs/NAME OF THE MANIFEST]"
)
@click.option(
    "--weights", default="imagenet", metavar="imagenet|random|FILE", help="The backbone's weights.", show_default=True
)
@click.option(
    "--backbone",
    default="resnet50v2",
    type=click.Choice(["resnet50v2", "resnet101v2", "resnet152v2"]),
    show_default=True,
)
@click.option(
    "--epochs", default=10, type=click.IntRange(1), help="At most, with the backbone frozen.", show_default=True
)
@click.option("--fine-tune-epochs", default=10, type=click.IntRange(0), help="At most, fine-tuning.", show_default=True)
@click.option(
    "--fine-tune-layers",
    default=5,
    type=click.IntRange(0),
    help="Last layers of the backbone to train.",
    show_default=True,
)
@click.option("--batch-size", default=32, type=click.IntRange(1), show_default=True)
@click.option("--learning-rate", default=1e-3, type=click.FloatRange(0, min_open=True), show_default=True)
@click.option("--fine-tune-learning-rate", default=1e-5, type=click.FloatRange(0, min_open=True), show_default=True)
@click.option("--seed", default=0, type=click.IntRange(0, 2**31 - 1), show_default=True)
@click.option(
    "--root",
    default=".",
    type=click.Path(path_type=Path),
    help="What the manifest's paths are relative to.",
    show_default=True,
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Where activations are kept.  [default: data/activations in the root]",
)
def fit(manifest: Path, run: Path | None, root: Path, cache: Path | None, **options: Any) -> None:
    """Train on MANIFEST: the head on a frozen backbone, then the backbone's last layers too.

    \b
    Example:
      python -m train fit manifests/augment1.csv
      python -m train fit manifests/sample.csv --weights random --epochs 3 --fine-tune-epochs 3
    """
    with _one_line_errors():
        _import_tensorflow()
        import pandas as pd

        from train import dataset as datasets
        from train import features, model, report
        from train import fit as fitting
        from train import run as runs

        settings = fitting.Settings(**options)
        dataset = datasets.read(manifest, root)
        folder = run or root / "runs" / manifest.stem
        backbone = model.load_backbone(settings.backbone, settings.weights, dataset.size, settings.seed)
        weights = model.digest(backbone)
        told = runs.describe(manifest, dataset, settings, weights)
        if runs.is_finished(folder, told):
            click.echo("This very run is finished already; move its folder away to run it again.")
        else:
            _print_set(told)
            part = model.cut(backbone, settings.fine_tune_layers)
            cache = cache or root / "data" / "activations"
            with _progress("activations", "images") as progress:
                kept = features.features(dataset, part, weights, cache, settings.batch_size, progress)
            click.echo(
                f"Activations of the frozen layers: {'taken from' if kept.reused else 'computed once, kept in'} {cache}"
            )
            with runs.written(folder) as partial:
                fitted = fitting.fit(dataset, part, kept, settings, partial / "tensorboard", _print_epoch)
                model.whole(backbone, fitted.head).save(partial / "model.keras")
                report.figures(dataset, root, pd.DataFrame(fitted.history), partial)
                runs.write(partial, told, fitted, dataset)
        click.echo(report.summary(folder).to_string(index=False))
        click.echo(f"Results: {folder} (figures, metrics.json, predictions.csv, model.keras, tensorboard)")


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
def compare(runs: tuple[Path, ...]) -> None:
    """Print test accuracy of each RUN, frozen and fine-tuned, beside the original study's.

    \b
    Example:
      python -m train compare runs/original runs/augment1 runs/augment2
    """
    with _one_line_errors():
        from train.report import comparison

        click.echo(comparison(list(runs)).to_string(index=False))


def _import_tensorflow() -> None:
    """Import TensorFlow without its page of build notes, which no setting of its own turns off."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What the user can mend is told in one line, with exit code 2."""
    try:
        yield
    except ValueError as error:  # every stage's own errors are ValueErrors
        if type(error).__module__.partition(".")[0] not in ("train", "manifests"):
            raise  # nobody's message to a user: a bug
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        click.echo(
            "Interrupted: nothing was written under the run's name. Activations that were finished are kept.", err=True
        )
        sys.exit(130)


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _print_set(told: dict[str, Any]) -> None:
    images = ", ".join(f"{count:,} {split}" for split, count in told["images"].items())
    click.echo(f"{told['set']}: {images} images of {' and '.join(told['classes'])}")
    if told["notice"]:
        click.echo(told["notice"])
    if told["weights"] == "random":
        click.echo("Random weights: the backbone has learnt nothing yet, so expect no more than chance.")


def _print_epoch(row: dict[str, Any]) -> None:
    click.echo(
        f"{row['phase']:>10}  epoch {row['epoch']:>3}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.4f}"
    )

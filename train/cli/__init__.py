"""The command line of `train`: options in, text out. The stages are imported inside: `--help` answers in a blink."""

import click

from train.cli.fit import fit
from train.cli.inference import cache, evaluate, export, predict
from train.cli.runs import compare, labels, report, shift


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train a ResNetV2 on a manifest's images, frozen and then fine-tuned, compare what came of it, and use it.

    No medical device: nothing that it trains may be used on patients.

    \b
    Example:
      python -m train fit manifests/augment1.csv
    """


for command in (fit, compare, report, shift, labels, predict, evaluate, export, cache):
    main.add_command(command)

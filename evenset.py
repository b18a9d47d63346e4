"""The console script `evenset`: both programs under one name."""

import click

import augment.cli
import common
import train.cli


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(common.__version__, prog_name="evenset")
def main() -> None:
    """Turn a small, lopsided set of images into a class-balanced one, and train on it.

    \b
    Example:
      evenset augment build --recipe even --source data/chest_xray
      evenset train fit manifests/even.csv

    Completion in bash: eval "$(_EVENSET_COMPLETE=bash_source evenset)"; zsh and fish likewise.

    No medical device: nothing that it makes or trains may be used on patients.
    """


main.add_command(augment.cli.main, "augment")
main.add_command(train.cli.main, "train")

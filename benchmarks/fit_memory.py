"""Peak memory of `fit` on a set of 100,000 images, with fine-tuning: the whole command.

    python benchmarks/fit_memory.py SOURCE [--images N] [--weights FILE]

Builds the set of SOURCE's images in a temporary folder, and keeps activations there: 12.5 GB for 100,000 images in 8 bits.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training import ROOT, fitted

RECIPE = """\
per_class: {per_class}
val: 0.1
transforms:
  - KerasAffine: {{rotation_range: 10, width_shift_range: 0.05, height_shift_range: 0.05, zoom_range: 0.2}}
"""


def main() -> None:
    """Build, fit, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="class folders")
    parser.add_argument("--images", type=int, default=100_000, help="of train and val together")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    parser.add_argument("--precision", default="int8", help="as `fit` takes it")
    chosen = parser.parse_args()
    weights = str(Path(chosen.weights).resolve()) if Path(chosen.weights).is_file() else chosen.weights
    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / "large.yaml"
        recipe.write_text(RECIPE.format(per_class=chosen.images // 2), encoding="utf-8")
        build = [sys.executable, "-m", "augment", "build", "--source", str(chosen.source.resolve())]
        began = time.perf_counter()
        subprocess.run([*build, "--recipe", str(recipe), "--root", scratch], cwd=ROOT, check=True)
        print(f"built in {time.perf_counter() - began:.0f} s", flush=True)
        options = ("--epochs", "1", "--fine-tune-epochs", "1", "--precision", chosen.precision)
        taken, _, peak = fitted(Path(scratch) / "manifests" / "large.csv", weights, Path(scratch), options)
    print(f"fit on {chosen.images:,} images, 1 + 1 epochs, {chosen.precision}: {taken:.0f} s, {peak:.2f} GB at most")


if __name__ == "__main__":
    main()

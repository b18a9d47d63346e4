"""Looks for better settings on validation alone, and tells the test result of the one that validation chose.

Trains on each manifest with each of the settings below, in processes of its own, prints what all came to on
validation, and reads test figures of one run only: the one with the best AUROC on validation. Kept activations make
most of the runs cheap. What was trained before is not trained again.
"""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from train.evaluation import results  # after the path to it

LAYERS = (5, 15)  # the last convolution, or the whole last block
RATES = (1e-5, 1e-4)


def trained(manifest: Path, weights: str, layers: int, rate: float) -> Path:
    """The folder of a finished run with these settings."""
    root = manifest.resolve().parents[1]
    run = root / "runs" / f"search-{manifest.stem}-{layers}-{rate:g}"
    options = ["--fine-tune-layers", str(layers), "--fine-tune-learning-rate", f"{rate:g}", "--weights", weights]
    command = [sys.executable, "-m", "train", "fit", str(manifest.resolve()), "--root", str(root), "--run", str(run)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return run


def main() -> None:
    """Train, print a table of validation figures, and the test figures of the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", type=Path, nargs="+", help="of sets, two folders below their root")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    chosen = parser.parse_args()
    weights = str(Path(chosen.weights).resolve()) if Path(chosen.weights).is_file() else chosen.weights
    tried: list[tuple[float, str, Path, str]] = []
    print("| set | layers | rate | phase | AUROC on validation | balanced accuracy on validation |")
    print("| --- | --: | --: | --- | --: | --: |")
    for manifest, layers, rate in itertools.product(chosen.manifests, LAYERS, RATES):
        run = trained(manifest, weights, layers, rate)
        for phase in ("frozen", "fine-tuned"):
            name = (manifest.stem, f"{layers}", f"{rate:g}") if phase == "fine-tuned" else (manifest.stem, "-", "-")
            line = f"| {' | '.join(name)} | {phase} | "
            if any(line == before for _, before, _, _ in tried):
                continue  # the frozen phase is the same whatever comes after it
            of_val = results.read(run).metrics[phase].val
            tried.append((of_val.auroc.value or 0.0, line, run, phase))
            print(f"{line}{of_val.auroc} | {of_val.decisions['chosen'].balanced_accuracy} |", flush=True)
    _, line, run, phase = max(tried, key=lambda each: each[0])
    test = results.read(run).metrics[phase].measured
    print(f"\nValidation chose {line} of {len(tried)}. On test: AUROC {test.auroc}")
    for way, decided in test.decisions.items():
        print(f"  at {way}: accuracy {decided.accuracy}, balanced {decided.balanced_accuracy}")


if __name__ == "__main__":
    main()

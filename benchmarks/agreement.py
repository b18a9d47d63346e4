"""Whether a run's figures, `evaluate`, `predict` and the exported models agree on the run's test images.

Prints for each the largest difference of a probability from predictions.csv, and how many decisions at the chosen
threshold are others; of `evaluate` the largest difference of a figure.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from train import tables
from train.dataset import images
from train.inference import predictor

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def command(*words: str | Path) -> str:
    """What a command of the trainer prints."""
    done = subprocess.run(
        [sys.executable, "-m", "train", *map(str, words)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def loaded(kind: str, path: Path) -> Forward:
    """An exported model, run by the program that it is for."""
    if kind == "saved_model":
        model = tf.saved_model.load(str(path))
        return lambda batch: model.serve(tf.constant(batch)).numpy()
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0]
    if kind == "openvino":
        core = openvino.Core()
        network = core.compile_model(core.read_model(path / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda batch: network(batch)[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))

    def forward(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        given = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(given, batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given, batch)
        interpreter.invoke()
        answer: NDArray[np.float32] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return answer

    return forward


def figures(measured: Any) -> list[float]:
    """All numbers of a metrics.json's part, in order."""
    if isinstance(measured, dict):
        return [number for value in measured.values() for number in figures(value)]
    if isinstance(measured, list):
        return [number for value in measured for number in figures(value)]
    return [float(measured)] if isinstance(measured, (int, float)) else []


def main() -> None:
    """Compare, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a finished run of two classes")
    parser.add_argument("root", type=Path, help="what its set's manifest is relative to")
    chosen = parser.parse_args()
    run, root = chosen.run.resolve(), chosen.root.resolve()
    settings, metrics = (json.loads((run / name).read_text()) for name in ("settings.json", "metrics.json"))
    rows = tables.read(run / "predictions.csv", tables.predictions(settings["classes"]))
    rows = rows[(rows["split"] == "test") & (rows["phase"] == list(metrics)[-1])].reset_index(drop=True)
    recorded = rows[tables.probability(settings["positive"])].to_numpy()
    threshold = predictor.load(run).threshold
    assert threshold is not None
    paths = [root / path for path in rows["path"]]

    def show(name: str, probabilities: NDArray[Any]) -> None:
        others = int(((probabilities >= threshold) != (recorded >= threshold)).sum())
        apart = np.abs(probabilities - recorded).max()
        print(f"{name:<12} largest difference {apart:.1e}, other decisions {others} of {len(recorded)}", flush=True)

    manifest = root / "manifests" / f"{settings['set']}.csv"
    again = json.loads(command("evaluate", run, manifest, "--root", root, "--json"))
    first = list(metrics.values())[-1]["test"]
    again = {name: again[name] for name in first}
    print(
        f"evaluate     largest difference of a figure {np.abs(np.subtract(figures(first), figures(again))).max():.1e}"
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command("predict", run, *sorted({path.parent for path in paths}), "--out", out / "predicted.csv")
        predicted = pd.read_csv(out / "predicted.csv", dtype={"file": str}, keep_default_na=False)
        by_file = dict(zip(predicted["file"], predicted[tables.probability(settings["positive"])], strict=True))
        show("predict", np.array([by_file[str(path)] for path in paths], float))
        for kind, name in (("saved_model", "s"), ("onnx", "m.onnx"), ("tflite", "m.tflite"), ("openvino", "o")):
            command("export", run, "--format", kind, "--out", out / name, "--root", root)
            forward = loaded(kind, out / name)
            batches = images(paths, (settings["size"][0], settings["size"][1]), 16)
            show(kind, np.concatenate([forward(batch.numpy())[:, -1] for batch in batches]).astype(float))


if __name__ == "__main__":
    main()

"""The notebook of the docs runs as it stands, and shows what it says: the first run convinces."""

import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"

# Put behind the notebook's own cells: what it has found, for the assertions below.
FOUND = """
import json
pair = found[found["first"].str.endswith("plain fine-tuned") & found["second"].str.endswith("sample fine-tuned")]
print(json.dumps({
    "auroc": {name: run.metrics["fine-tuned"].test.auroc.value for name, run in (("plain", first), ("sample", second))},
    "patients": second.metrics["fine-tuned"].test.patients,
    "low": dict(zip(pair["figure"], pair["low"])),
    "notice": second.settings["notice"],
}))
"""


@pytest.mark.slow
def test_the_tutorial_runs_and_augmentation_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AUROC above 0.9, and better than without augmentation by more than chance, in ranking and in decisions."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(FOUND))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    found = json.loads("".join(output["text"] for output in notebook.cells[-1].outputs if output.name == "stdout"))
    assert found["auroc"]["sample"] > 0.9
    assert found["patients"] > 100
    assert found["low"]["AUROC"] > 0
    assert found["low"]["accuracy at the chosen thresholds"] > 0
    assert "no patients" in found["notice"]


def test_the_tutorial_was_run_as_it_is_committed() -> None:
    """Every cell of code has run, in order and without an error; it holds no path of the machine that it ran on."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert not re.search(r"/root/|/home/|/Users/", json.dumps([cell.outputs for cell in code]))


def test_the_tutorial_trains_as_make_train_does() -> None:
    """The demo's settings stand in the Makefile, in the notebook and in a benchmark, and are the same."""
    (options,) = re.findall(r"^TUNING := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = shlex.split(options)
    for name, value in zip(words[::2], words[1::2], strict=True):
        setting = rf"{name[2:].replace('-', '_')}\W{{1,3}}{re.escape(value)}\b"
        for place in (NOTEBOOK, ROOT / "benchmarks" / "demo.py"):
            assert re.search(setting, place.read_text()), (place, setting)

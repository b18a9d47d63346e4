"""Tables that are written and read again: every name and every digit comes back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train import tables
from train.evaluation import compare, curves, results
from train.reporting import page

# Names that readers of CSV take for something else, beside any text that a manifest may hold.
HOSTILE = (
    "0", "1", "01", "002", "010", "0.10", "1e5", "100000", "1_000", "0x1F", "+1", "-0", "NA", "N/A", "nan", "NaN",
    "null", "None", "TRUE", "FALSE", "True", "inf", "2024-01-02", "=1+1", "@x", "'", '"', '""', ",", ";", "#", " ",
    " a", "a ", "a,b", 'a"b', "split", "phase", "path", "label", "p(0)", "\ufeffx", "\u2028", "日本", "é",
)  # fmt: skip
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1))
PROBABILITIES = st.floats(0, 1)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_predictions_come_back_as_they_were(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever classes, patients and files are called, and to the last bit of every probability."""
    classes = data.draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    texts = ["path", "source_sha256", "split", "label", "group", "phase", "predicted (0.5)", "predicted (chosen)"]
    count = data.draw(st.integers(1, 5))
    table = pd.DataFrame({name: data.draw(st.lists(NAMES, min_size=count, max_size=count)) for name in texts})
    for label in classes:
        table[tables.probability(label)] = data.draw(st.lists(PROBABILITIES, min_size=count, max_size=count))
    path = tmp_path / "predictions.csv"
    tables.write(path, table)
    pd.testing.assert_frame_equal(tables.read(path, tables.predictions(classes)), table, check_exact=True)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_history_comes_back_as_it_was(tmp_path: Path, losses: list[float]) -> None:
    """Epochs as whole numbers, float32 losses as the float64 of the same value."""
    table = pd.DataFrame({"phase": "frozen", "epoch": range(1, len(losses) + 1), "loss": np.array(losses, np.float32)})
    table = table.assign(accuracy=0.1, val_loss=1 / 3, val_accuracy=1.0)
    tables.write(tmp_path / "history.csv", table)
    read = tables.read(tmp_path / "history.csv", tables.HISTORY)
    assert read["loss"].tolist() == losses
    assert read["val_loss"].tolist() == table["val_loss"].tolist()
    assert (read["epoch"].dtype, read["phase"].tolist()) == ("int64", ["frozen"] * len(losses))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "No columns"),
        ("phase,epoch\nfrozen,1\n", "no column 'loss'"),
        ("phase,epoch,loss,accuracy,val_loss,val_accuracy\nfrozen,1.5,0,0,0,0\n", "line 2, column epoch: got '1.5'"),
        ("phase,epoch,loss,accuracy,val_loss,val_accuracy\nfrozen,1,0,0,0,0\nf,2,,0,0,0\n", "line 3, column loss"),
        ("phase,epoch,loss,accuracy,val_loss,val_accuracy\nfrozen,1,0,0,0,0,0\n", "more fields than the header"),
        ("phase,epoch,loss,accuracy,val_loss,val_accuracy\nf,1,0,0,0,0\nf,2,0,0,0,0,0\n", "damaged"),
        ('phase,epoch,loss,accuracy,val_loss,val_accuracy\n"f,1,0,0,0,0\n', "damaged"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    """A column that is missing, a line that is cut or too long, a value that is no number."""
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(tables.TableError) as caught:
        tables.read(path, tables.HISTORY)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "classes", [("0", "1"), ("01", "02"), ("FALSE", "TRUE"), ("NA", "NORMAL"), ("100000", "1e5"), ("label", "split")]
)
def test_classes_that_look_like_numbers_stay_classes(
    drawn_run: Callable[..., Path], tmp_path: Path, classes: tuple[str, ...]
) -> None:
    """Figures, comparison and report have the classes by their names, and compute with one set of probabilities."""
    folder = drawn_run(tmp_path, classes=classes)
    run = results.read(folder)
    assert set(run.predictions["label"]) == set(classes)
    found = compare.differences([run], lambda *_: None).set_index("figure")
    assert np.isfinite(found[["difference", "low", "high"]].to_numpy()).all()
    measured = [phase.test.auroc.value for phase in run.metrics.values()]
    assert found.loc["AUROC", "difference"] == pytest.approx(measured[1] - measured[0], abs=2e-6)
    assert set(curves.scored(run, "frozen").labels) == {0, 1}
    page.write([folder], tmp_path, tmp_path / "report.html", lambda *_: (None, "no model"), lambda *_: None)
    negative, positive = reversed(classes) if classes == ("NA", "NORMAL") else classes  # the normal one is not positive
    assert (
        f"images of {negative} and {positive}. {positive} is the positive class"
        in (tmp_path / "report.html").read_text()
    )


def test_patients_whose_numbers_look_alike_stay_apart(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """`010` and `10`, `1e5` and `100000`, `0.10` and `0.1` are six patients in metrics.json, curves and comparison."""
    names = ("010", "10", "1e5", "100000", "0.10", "0.1", "NA", "nan")
    folder = drawn_run(tmp_path, groups=names)
    patients = json.loads((folder / "metrics.json").read_text())["frozen"]["test"]["patients"]
    run = results.read(folder)
    of_test = run.predictions[run.predictions["split"] == "test"]
    assert patients == of_test["group"].nunique() == len(names)
    assert len(np.unique(curves.scored(run, "frozen").patients)) == len(names)

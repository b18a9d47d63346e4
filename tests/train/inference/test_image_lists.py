"""predict and evaluate take lists of images: as an engineer has them, with other columns, bad rows and other hospitals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from manifests import contract
from train.cli import main


def call(*words: object) -> Result:
    """Run a command of `train`."""
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Eight images in two folders, named in a list with columns, separators and names of its own."""
    rng = np.random.default_rng(5)
    lines = ["Image;Finding;Patient"]
    for number in range(8):
        file = tmp_path / "pictures" / f"ward{number % 2}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 90), dtype=np.uint8)).save(file)
        lines.append(f"C:\\export\\ward{number % 2}\\{number:03}.png;class{number // 4};00{number // 2}")
    (tmp_path / "list.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    return tmp_path / "list.csv"


COLUMNS = ("--columns", "path=Image,label=Finding,group=Patient")


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    """A run of two classes."""
    return make_run(classes=("class0", "class1"), threshold={"value": 0.5, "chosen_by": "hand"})


def test_predict_names_the_lists_images_in_its_order(run: Path, hospital: Path, tmp_path: Path) -> None:
    """A row a row of the list; what isn't there has its reason, and the same image by its path has the same prediction."""
    with hospital.open("a") as file:
        file.write("\r\ngone.png;class0;9\r\nshort\r\n")
    result = call("predict", run, hospital, *COLUMNS, "--out", tmp_path / "p.csv")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "p.csv", keep_default_na=False)
    assert [Path(name).name for name in table["file"]] == [
        *(f"{n:03}.png" for n in range(8)),
        "gone.png",
        "list.csv, row 11",
    ]
    assert table["error"].tolist() == [""] * 8 + ["no such file", "has 1 cells, the header 3"]
    call("predict", run, tmp_path / "pictures", "--out", tmp_path / "q.csv")
    by_path = pd.read_csv(tmp_path / "q.csv", index_col="file")["p(class1)"]
    assert np.allclose(by_path[table["file"][:8]].to_numpy(), table["p(class1)"][:8].astype(float), atol=1e-6)


def test_evaluate_measures_on_a_list(run: Path, hospital: Path, tmp_path: Path) -> None:
    """The figures are those of predict's probabilities, with patients as the list has them; bad rows are counted."""
    with hospital.open("a") as file:
        file.write("\r\ngone.png;class0;9\r\n")
    result = call("evaluate", run, hospital, *COLUMNS, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    call("predict", run, tmp_path / "pictures", "--out", tmp_path / "p.csv")
    table = pd.read_csv(tmp_path / "p.csv")
    positive = table["file"].str.extract(r"(\d+)\.png")[0].astype(int) >= 4
    right = ((table["p(class1)"] >= 0.5) == positive).mean()
    assert found["decisions"]["0.5"]["accuracy"]["value"] == pytest.approx(right)
    assert found["images"] == 8
    assert found["patients"] == 4
    assert "1 of its 9 rows have no image that can be read; first: " in " ".join(found["leak_check"]["notes"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Image;Finding\n000.png;class7\n", "has the class 'class7', the run knows class0, class1"),
        (
            "Image;Finding\n000.png;class0\nward0/000.png;class1\n001.png;\n",
            "no image is left to measure the run on. Left out, rows without a class: 1; first: ",
        ),
        ("Image;Finding\ngone.png;class0\n", "no image is left to measure the run on. 1 of its 1 rows"),
        (
            "Bild;Finding\n000.png;class0\n",
            "has no column 'Image'; it has Bild, Finding. Say which columns hold what: --columns",
        ),
        ("Image;Finding;patient\n000.png;class0;01\n", "has no column 'Patient'; did you mean patient?"),
    ],
)
def test_a_list_that_cannot_be_measured_says_why(run: Path, hospital: Path, text: str, message: str) -> None:
    """One line that names the value and the fix."""
    hospital.write_text(text, encoding="utf-8")
    columns = "path=Image,label=Finding" + (",group=Patient" if "patient" in text else "")
    result = call("evaluate", run, hospital, "--columns", columns)
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]


def test_columns_that_are_none(run: Path, hospital: Path) -> None:
    """The option says what it takes."""
    result = call("evaluate", run, hospital, "--columns", "image=Image")
    assert result.exit_code == 2
    assert "expected names such as path=Image,label=Finding,group=Patient" in result.output


@pytest.fixture
def tiny(image_set: Callable[..., Path]) -> Path:
    """A run of `fit` on a set of its own."""
    manifest = image_set(train=6, val=4, test=6)
    root = manifest.parent.parent
    short = ("--weights", "random", "--epochs", 1, "--fine-tune-epochs", 0, "--engine", "tensorflow")
    assert call("fit", manifest, "--root", root, *short).exit_code == 0
    return root / "runs" / "tiny"


@pytest.mark.slow
def test_images_that_were_learnt_from_are_refused_in_a_list_too(tiny: Path) -> None:
    """A set's own files, in a list beside them: refused, or left out; and a manifest is read as one all the same."""
    root = tiny.parents[1]
    manifest = root / "manifests" / "tiny.csv"
    rows = contract.read(manifest)
    rows[["path", "label"]].to_csv(root / "all.csv", index=False)
    result = call("evaluate", tiny, root / "all.csv")
    assert result.exit_code == 2
    learnt = int((rows["split"] != "test").sum())
    assert f"{learnt} of its {len(rows)} test images" in result.output
    result = call("evaluate", tiny, root / "all.csv", "--on-leak", "drop", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["images"], found["leak_check"]["left_out"]) == (len(rows) - learnt, learnt)
    as_set = json.loads(call("evaluate", tiny, manifest, "--root", root, "--json").stdout)
    assert found["auroc"]["value"] == pytest.approx(as_set["auroc"]["value"])


@pytest.mark.slow
def test_patients_that_were_learnt_from_are_left_out_of_a_list_too(tiny: Path) -> None:
    """Where list and set have images in common, a name means one patient in both; else names say nothing."""
    root = tiny.parents[1]
    rows = contract.read(root / "manifests" / "tiny.csv")
    rows["label"] = rows["label"].astype(object)
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    learnt = rows[rows["split"] == "train"].reset_index(drop=True)
    test.loc[0, "group"] = learnt.loc[0, "group"]  # another image of a patient who was learnt from
    test.loc[1, "label"] = ""
    columns = ["path", "label", "group"]
    test[columns].to_csv(root / "others.csv", index=False)
    found = json.loads(call("evaluate", tiny, root / "others.csv", "--json").stdout)
    assert (found["images"], found["leak_check"]["by"]) == (len(test) - 1, ["file", "pixels"])
    blank, alike = found["leak_check"]["notes"]
    assert blank.startswith("Left out, rows without a class: 1; first: ")
    assert alike.startswith("1 of its groups are called as groups that the run learnt from. They are taken for others")
    pd.concat([test, learnt.head(1)])[columns].to_csv(root / "own.csv", index=False)
    result = call("evaluate", tiny, root / "own.csv")
    assert result.exit_code == 2
    assert "(the same file: 1, the same group: 1)" in result.output
    found = json.loads(call("evaluate", tiny, root / "own.csv", "--on-leak", "drop", "--json").stdout)
    assert (found["images"], found["leak_check"]["left_out"]) == (len(test) - 2, 2)
    assert found["leak_check"]["by"] == ["file", "pixels", "group"]
    others = json.loads(
        call("evaluate", tiny, root / "own.csv", "--on-leak", "drop", "--other-patients", "--json").stdout
    )
    assert (others["images"], others["leak_check"]["left_out"]) == (len(test) - 1, 1)

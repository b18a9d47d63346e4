"""The six large public chest X-ray sets, small and synthetic, in their true columns and layout, by the recipes of docs/lists."""

import csv
import gzip
import io
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from augment.recipe import load
from augment.sources.groups import describe_groups
from augment.sources.scan import Scan, scan

THREADS = ThreadPoolExecutor(2)

LISTS = Path(__file__).parents[3] / "docs" / "lists"


def image(path: Path, *, deep: bool = False) -> None:
    """A gray image, other for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-4:]).encode()))
    is_dicom = path.suffix in (".dcm", ".dicom")
    pixels = rng.integers(0, 4096 if deep or is_dicom else 256, (40, 48), dtype=np.uint16)
    if is_dicom:
        pytest.importorskip("pydicom", reason="python -m pip install -r requirements-dicom.txt")
        from tests.common.images.test_dicom import dataset, saved

        path.write_bytes(saved(dataset(pixels, PatientIdentityRemoved="YES", BurnedInAnnotation="NO")))
        return
    kind = path.suffix if path.suffix in (".jpg", ".png") else ".png"  # by content, whatever the name
    path.write_bytes(cv2.imencode(kind, pixels if deep else pixels.astype(np.uint8))[1].tobytes())


def table(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    """A CSV with its header as the set has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    text.write(f"{header}\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def nih(home: Path) -> Path:
    rows, splits = [], {"train_val_list.txt": [""], "test_list.txt": [""]}
    for number in range(80):
        name = f"{number // 2 + 1:08}_{number % 2:03}.png"
        image(home / f"images_{1 + number // 40:03}" / "images" / name)
        finding = ("Effusion|Pneumonia", "No Finding", "No Finding", "Mass")[number // 2 % 4]
        view = "AP" if number % 20 == 0 else "PA"
        rows.append((name, finding, "000", number // 2 + 1, "058Y", "M", view, 2682, 2749, 0.143, 0.143, ""))
        splits["test_list.txt" if number // 2 % 5 == 4 else "train_val_list.txt"].append(name)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    table(home / "Data_Entry_2017.csv", f"{header}OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],", rows)
    for name, lines in splits.items():
        (home / name).write_text("\n".join(lines[1:]), encoding="utf-8")
    return home / "Data_Entry_2017.csv"


def rsna(home: Path) -> Path:
    rows: list[tuple[object, ...]] = []
    for number in range(40):
        name = f"{number:04x}a1b2-c3d4"
        image(home / "stage_2_train_images" / f"{name}.dcm")
        boxes = number % 4 if number % 3 == 0 else 0
        drawn = [(10.0 * box, 5.0, 20.0, 20.0) for box in range(boxes)]
        rows += [(name, *box, int(boxes > 0)) for box in drawn or [("", "", "", "")]]
    table(home / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", rows)
    return home / "stage_2_train_labels.csv"


CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def chexpert(home: Path) -> Path:
    for part, patients in (("train", range(1, 41)), ("valid", range(64541, 64551))):
        rows = []
        for patient in patients:
            for view, side in ((1, "Frontal"), (2, "Lateral")):
                path = f"{part}/patient{patient:05}/study1/view{view}_{side.lower()}.jpg"
                image(home / path)
                pneumonia = ("1.0", "", "0.0", "-1.0", "")[patient % 5]
                findings = ["", *[""] * 6, pneumonia, *[""] * 6]
                rows.append((f"CheXpert-v1.0-small/{path}", "Female", 68, side, "AP" if view == 1 else "", *findings))
        table(home / f"{part}.csv", f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}", rows)
    return home


def mimic(home: Path) -> Path:
    metadata, labels, splits = [], [], []
    for number in range(48):
        subject, study = f"{10000032 + number // 2 * 7}", f"{50414267 + number}"
        name = f"{number:08x}-2c0d2a4d-a1f3bd2a-9a3b2a4d-{number:08x}"
        image(home / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{name}.jpg")
        metadata.append(
            (name, subject, study, "CHEST (PA AND LAT)", "LATERAL" if number % 8 == 7 else "PA", 3056, 2544)
        )
        found = {"Pneumonia": ("1.0", "", "0.0", "-1.0")[number % 4], "No Finding": ("", "1.0", "", "")[number % 4]}
        labels.append((subject, study, *(found.get(name, "") for name in sorted(CHEXPERT.split(",")))))
        splits.append((name, study, subject, ("train", "train", "validate", "test")[number // 2 % 4]))
    table(home / "mimic-cxr-2.0.0-metadata.csv.gz", "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
          "ViewPosition,Rows,Columns", metadata)  # fmt: skip
    table(
        home / "mimic-cxr-2.0.0-chexpert.csv.gz", f"subject_id,study_id,{','.join(sorted(CHEXPERT.split(',')))}", labels
    )
    table(home / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", splits)
    return home / "mimic-cxr-2.0.0-metadata.csv.gz"


def padchest(home: Path) -> Path:
    rows: list[tuple[object, ...]] = []
    for number in range(48):
        name = f"{2161604 + number}_{number:03}_q8q2.png"
        image(home / "0" / name, deep=True)
        labels = ("['normal']", "['pneumonia', 'infiltrates']", "['infiltrates', ' pneumonia']", "['nodule']")[
            number % 4
        ]
        projection = "L" if number % 12 == 11 else "PA"
        report = 'paciente, con "tos"\ny fiebre .'
        rows.append(
            (number, name, 0, 20140915, f"S{number}", f"{number // 2:05}", 1930, "M", projection, report, labels)
        )
    header = (
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,Labels"
    )
    table(home / "PADCHEST_chest_x_ray_images_labels_160K.csv.gz", header, rows)
    return home / "PADCHEST_chest_x_ray_images_labels_160K.csv.gz"


def vindr(home: Path) -> Path:
    rows: list[tuple[object, ...]] = []
    for number in range(40):
        name = f"{number:032x}"
        image(home / "train" / f"{name}.dicom")
        for reader in range(3):
            ill = reader < (0, 1, 2, 3)[number % 4]
            boxes = [("Consolidation", 1.0, 2.0, 3.0, 4.0), ("Lung Opacity", 5.0, 6.0, 7.0, 8.0)]
            rows += [(name, f"R{8 + reader}", *one) for one in (boxes if ill else [("No finding", "", "", "", "")])]
    table(home / "annotations" / "annotations_train.csv", "image_id,rad_id,class_name,x_min,y_min,x_max,y_max", rows)
    rows = []
    for number in range(40, 56):
        name = f"{number:032x}"
        image(home / "test" / f"{name}.dicom")
        finding = ("Consolidation", 1.0, 2.0, 3.0, 4.0) if number % 2 else ("No finding", "", "", "", "")
        rows.append((name, "consensus", *finding))
    table(home / "annotations" / "annotations_test.csv", "image_id,rad_id,class_name,x_min,y_min,x_max,y_max", rows)
    return home


SETS = {"nih": nih, "rsna": rsna, "chexpert": chexpert, "mimic": mimic, "padchest": padchest, "vindr": vindr}
# name -> images by split and class, reasons of what is left out with how many, groups (as many as images: unknown)
EXPECTED: dict[str, tuple[dict[tuple[str, str], int], dict[str, int], int]] = {
    "nih": (
        {("train", "Pneumonia"): 14, ("train", "No Finding"): 30, ("test", "Pneumonia"): 4, ("test", "No Finding"): 8},
        {"left out: View Position is not PA": 4, "left out: neither Pneumonia nor No Finding": 20},
        30,
    ),
    "rsna": ({("", "0"): 30, ("", "1"): 10}, {}, 40),
    "chexpert": (
        {("train", "Pneumonia"): 8, ("train", "no Pneumonia"): 24, ("val", "Pneumonia"): 2, ("val", "no Pneumonia"): 6},
        {"left out: Frontal/Lateral is not Frontal": 50, "left out: Pneumonia is uncertain": 10},
        40,
    ),
    "mimic": (
        {(split, label): 6 for split in ("train", "val") for label in ("Pneumonia", "No Finding")},
        {
            "left out: ViewPosition is not PA or AP": 6, "left out: Pneumonia is uncertain": 6,
            "left out: neither Pneumonia nor No Finding": 12,
        },
        12,
    ),
    "padchest": (
        {("", "normal"): 12, ("", "pneumonia"): 24},
        {"left out: Projection is not PA or AP": 4, "left out: neither pneumonia nor normal": 8},
        24,
    ),
    "vindr": (
        {(split, label): n for split, n in (("train", 20), ("test", 8)) for label in ("Consolidation", "No finding")},
        {},
        56,
    ),
}  # fmt: skip


def look(name: str, home: Path) -> Scan:
    recipe = load(str(LISTS / f"{name}.yaml"))
    return scan(SETS[name](home), recipe.group, THREADS, list_format=recipe.list)


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    """Images by split and class, patients, and what is left out with the reason: nothing else, and nothing lost."""
    images, reasons, groups = EXPECTED[name]
    found = look(name, tmp_path / name)
    assert found.sources.groupby(["split", "label"]).size().to_dict() == images
    assert Counter(entry.reason for entry in found.rejected) == reasons
    assert found.sources["group"].nunique() == groups
    known = describe_groups(found.sources, load(str(LISTS / f"{name}.yaml")).group, found.list_format).are_known
    assert known == (name not in ("rsna", "vindr"))
    on_disk = [
        path for path in found.folder.rglob("*") if path.is_file() and path.suffix not in (".csv", ".gz", ".txt")
    ]
    assert len(on_disk) == len(found.sources) + len(found.rejected)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_each_set_builds_trains_and_reports(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """From the list to the report, by the recipe of the docs with fewer images."""
    home = tmp_path / "source"
    source = SETS[name](home)
    text = (LISTS / f"{name}.yaml").read_text(encoding="utf-8").replace("per_class: 5000", "per_class: 40\nsize: 48")
    recipe = tmp_path / f"{name}.yaml"
    recipe.write_text(text, encoding="utf-8")

    def run(*words: object) -> str:
        command = [sys.executable, "-m", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr

    built = run("augment", "build", "--recipe", recipe, "--source", source, "--workers", 2)
    assert ("names no groups" in built) == (name in ("rsna", "vindr"))
    assert "Up to date" in run("augment", "build", "--recipe", recipe, "--source", source)
    few = ("--weights", "random", "--epochs", 1, "--fine-tune-epochs", 1)
    run("train", "fit", f"manifests/{name}.csv", "--run", "runs/it", *few)
    run("train", "report", "runs/it", "--out", "report.html")
    assert "AUROC" in (tmp_path / "report.html").read_text(encoding="utf-8")

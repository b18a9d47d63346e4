"""Sets of DICOM files: patients by a keyed hash, and no identifier anywhere."""

import subprocess
import sys
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augment.sources.dicom_tags import read_headers
from manifests import contract
from tests.augment.conftest import Call

pytest.importorskip("pydicom", reason="python -m pip install -r requirements-dicom.txt")

from tests.common.images.test_dicom import dataset, deflated, gray, saved  # if pydicom is there

RECIPE = "size: 32\nper_class: 12\ngroup_tag: PatientID\ntransforms: [HorizontalFlip]\n"
SECRETS = (b"MRN", b"Weiss", b"Anna", b"19700101", b"Praxis")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Twelve X-rays of six patients in two classes, with all that a header holds; a key and a recipe beside them."""
    for number in range(12):
        tags: dict[str, Any] = {"PatientID": f"MRN{7000 + number // 2}", "PatientName": f"Weiss^Anna{number // 2}"}
        tags |= {"PatientBirthDate": "19700101", "InstitutionName": "Praxis", "BurnedInAnnotation": "NO"}
        file = tmp_path / "source" / ("ill", "well")[number // 2 % 2] / f"IM{number:04}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(saved(dataset(np.roll(gray(), number, axis=1), **tags)))
    (tmp_path / "key").write_bytes(b"a secret of the clinic's own")
    (tmp_path / "set.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def build(call: Call, clinic: Path, *more: str | Path) -> Any:
    return call("build", "--recipe", clinic / "set.yaml", "--source", clinic / "source", "--root", clinic, *more)


def test_patients_are_hashed_and_nothing_else_of_a_header_gets_out(clinic: Path, call: Call) -> None:
    """Two images of one patient are of one group; no ID, name, date or institution is in any output, the names included."""
    done = build(call, clinic, "--group-key", clinic / "key")
    assert done.exit_code == 0, done.output
    rows = contract.read(clinic / "manifests" / "set.csv")
    by_source = rows.groupby("source")["group"].first()
    assert by_source.nunique() == 6
    assert (by_source.to_numpy()[::2] == by_source.to_numpy()[1::2]).all()
    assert rows["group"].str.fullmatch("[0-9a-f]{16}").all()
    call("gallery", clinic / "manifests" / "set.csv", "--root", clinic)
    written = [path for path in (*(clinic / "manifests").rglob("*"), *(clinic / "data").rglob("*")) if path.is_file()]
    assert len(written) > 20
    for secret in (*SECRETS, (clinic / "key").read_bytes()):
        assert secret not in done.output.encode()
        assert not [path for path in written if secret in path.read_bytes() or secret.decode() in path.name]
    assert "don't declare that the patient's identity was removed" in done.output
    assert "burned" not in done.output


def test_the_key_decides_the_groups_and_not_the_set(clinic: Path, call: Call) -> None:
    """The same key: up to date. Another: other groups, with a warning. None, or a short one: a line that says how to make one."""
    build(call, clinic, "--group-key", clinic / "key")
    assert "Up to date" in build(call, clinic, "--group-key", clinic / "key").output
    first = set(contract.read(clinic / "manifests" / "set.csv")["group"])
    (clinic / "key").write_bytes(b"another secret of the clinic")
    assert (
        "hashed with another key than those of the set that was here"
        in build(call, clinic, "--group-key", clinic / "key").output
    )
    again = build(call, clinic, "--group-key", clinic / "key").output
    assert "Up to date" in again
    assert "another key" not in again
    assert not first & set(contract.read(clinic / "manifests" / "set.csv")["group"])
    (clinic / "key").write_bytes(b"short")
    assert "5 bytes, expected 16 or more" in build(call, clinic, "--group-key", clinic / "key").output
    assert "give --group-key FILE" in build(call, clinic).output


def test_a_path_that_names_the_patient_is_refused(clinic: Path, call: Call) -> None:
    """It would be in the manifest; the message counts and names no one. De-identified files may be called so."""
    file = clinic / "source" / "ill" / "IM0000.dcm"
    named = file.rename(file.with_name("weiss_anna0.dcm"))
    done = build(call, clinic, "--group-key", clinic / "key")
    assert done.exit_code == 2
    assert "the paths of 1 DICOM files hold the ID or name of their patient" in done.output
    assert "anna0" not in done.output
    tags = {"PatientName": "Weiss^Anna0", "PatientIdentityRemoved": "YES", "BurnedInAnnotation": "YES"}
    named.write_bytes(saved(dataset(gray(), **tags)))
    done = build(call, clinic, "--group-key", clinic / "key")
    assert done.exit_code == 0
    assert "1 of 12 DICOM files say that text is burned into the image, which may name the patient: " in done.output


@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("王小明_02.dcm", {"PatientName": "王小明"}),
        ("王小明_01.dcm", {"PatientName": "Wang^XiaoMing=王^小明"}),
        ("tarou.dcm", {"PatientName": "Yamada^Tarou=山田^太郎=ヤマダ^タロウ"}),
        ("タロウ01.dcm", {"PatientName": "Yamada^Tarou=山田^太郎=ヤマダ^タロウ"}),
        (unicodedata.normalize("NFD", "müller.dcm"), {"PatientName": "Müller^Jo"}),
        ("jane_doering.dcm", {"PatientName": "Doering, Jane"}),
        ("maria-elena.dcm", {"PatientName": "Xu^Maria Elena"}),
        ("meier_schmidt.dcm", {"PatientName": "Meier-Schmidt^Jo"}),
        ("WeissAnna/IM1.dcm", {"PatientName": "Weiss^Anna"}),
        ("MRN1234567.dcm", {"PatientID": "MRN 1234567"}),
        ("mrn-1234567/IM1.dcm", {"PatientID": "MRN1234567"}),
        ("Li_Wei.dcm", {"PatientName": "Li^Wei"}),
        ("ACC99812.dcm", {"AccessionNumber": "ACC99812"}),
    ],
    ids=str,
)
def test_names_are_found_however_they_are_written(
    path: str, tags: dict[str, Any], clinic: Path, call: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    """In any script, composed or not, with other separators or none; the tag's own value is an identifier too."""
    made = {"PatientID": "1234567890", "PatientName": "x", "SpecificCharacterSet": "ISO_IR 192", **tags}
    file = clinic / "source" / "ill" / path
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(saved(dataset(gray(), **made)))
    (clinic / "set.yaml").write_text(RECIPE.replace("PatientID", "AccessionNumber"), encoding="utf-8")
    done = build(call, clinic, "--group-key", clinic / "key")
    assert "the paths of 1 DICOM files hold the ID or name of their patient" in done.output
    assert Path(path).stem not in done.output + "".join(capfd.readouterr())


def test_words_of_folders_are_no_names(clinic: Path, call: Call) -> None:
    """Nor those of classes, nor what stands for nobody, nor a short word alone."""
    names = ("Well^Anna", "Anonymous Patient", "Ward^Jo", "Ward", "Li^Ill", "Sele^A")
    for number, name in enumerate(names):
        file = clinic / "source" / "well" / "selected towards" / f"patient_li{number}.dcm"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(
            saved(dataset(np.roll(gray(), -number, axis=0), PatientID=f"No. {number}8765", PatientName=name))
        )
    done = build(call, clinic, "--group-key", clinic / "key")
    assert done.exit_code == 0, done.output


def test_groups_that_name_the_patient_are_refused(clinic: Path, call: Call) -> None:
    """A list's column would be in the manifest in clear; hashed by the tag it may be there, or with the identity removed."""
    files = sorted((clinic / "source").rglob("*.dcm"))
    rows = [
        f"{file.relative_to(clinic / 'source').as_posix()},{file.parent.name},MRN {7000 + int(file.stem[2:]) // 2}"
        for file in files
    ]
    listing = clinic / "source" / "list.csv"
    listing.write_text("\n".join(["path,label,group", *rows]), encoding="utf-8")
    (clinic / "set.yaml").write_text(RECIPE.replace("group_tag: PatientID\n", ""), encoding="utf-8")
    given = ("build", "--recipe", clinic / "set.yaml", "--source", listing, "--root", clinic)
    done = call(*given)
    assert done.exit_code == 2
    assert "the groups of 12 DICOM files, by list or name, hold the ID or name of their patient" in done.output
    assert "MRN" not in done.output
    assert not (clinic / "manifests").exists()
    (clinic / "set.yaml").write_text(RECIPE, encoding="utf-8")
    assert call(*given, "--group-key", clinic / "key").exit_code == 0
    assert "MRN" not in (clinic / "manifests" / "set.csv").read_text(encoding="utf-8")


def test_values_that_dicom_forbids_are_not_printed(clinic: Path, call: Call, capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings of pydicom quote them."""
    for number, file in enumerate(sorted((clinic / "source").rglob("*.dcm"))):
        written = saved(dataset(np.roll(gray(), number, axis=1), StudyInstanceUID=f"1.2.3.40{number // 2:02}.22"))
        file.write_bytes(
            written.replace(f"1.2.3.40{number // 2:02}.22".encode(), f"MRN{number // 2:04}-Weiss".encode())
        )
    (clinic / "set.yaml").write_text(RECIPE.replace("PatientID", "StudyInstanceUID"), encoding="utf-8")
    with warnings.catch_warnings(record=True) as warned:
        done = build(call, clinic, "--group-key", clinic / "key")
    assert done.exit_code == 0, done.output
    assert contract.read(clinic / "manifests" / "set.csv")["group"].nunique() == 6
    printed = done.output + "".join(capfd.readouterr()) + "".join(str(each.message) for each in warned)
    assert "Weiss" not in printed


def test_a_header_that_cannot_be_read_takes_its_file_out(clinic: Path) -> None:
    """With the reason, and never in a group of its own."""
    with ThreadPoolExecutor(1) as threads:
        found = read_headers(clinic / "source", ["ill/gone.dcm"], [""], ["ill"], None, threads, lambda *_: None)
    assert found.unread == ["can't be read: No such file or directory"]
    assert not found.warnings


LACKING = """
import resource, sys
from pathlib import Path
from augment.sources.dicom_tags import GroupTag, _header
import pydicom
held = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (held + 20 * 2**20, resource.RLIM_INFINITY))
try:
    _header(Path(sys.argv[1]), ("scan.dcm", ""), GroupTag("PatientID", b"a secret of the clinic's own"), ())
except MemoryError as error:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lack_of_memory_takes_no_image_from_its_patient(tmp_path: Path) -> None:
    """It stops the scan, or a patient's images would be of several groups."""
    (tmp_path / "scan.dcm").write_bytes(deflated(dataset(gray()), 100))
    done = subprocess.run([sys.executable, "-c", LACKING, str(tmp_path)], capture_output=True, check=True)
    assert done.stdout.strip() == b"MemoryError"


def test_an_id_for_each_image_is_warned_of(clinic: Path, call: Call) -> None:
    """As in sets whose PatientID was made from the image's."""
    for number, file in enumerate(sorted((clinic / "source").rglob("*.dcm"))):
        file.write_bytes(saved(dataset(np.roll(gray(), number, axis=1), PatientID=f"{number:08x}", PatientName="x")))
    done = build(call, clinic, "--group-key", clinic / "key")
    assert "PatientID is another in each of 12 DICOM files" in done.output


def test_what_is_no_tag_and_what_is_no_image(clinic: Path, call: Call) -> None:
    """A keyword that DICOM doesn't have is named; a broken file is rejected by name and the set is built."""
    (clinic / "source" / "ill" / "broken.dcm").write_bytes(saved(dataset(gray()))[:-500])
    done = build(call, clinic, "--group-key", clinic / "key")
    assert done.exit_code == 0
    assert "ill/broken.dcm: damaged DICOM" in done.output
    (clinic / "set.yaml").write_text(RECIPE.replace("PatientID", "Patient"), encoding="utf-8")
    assert "group_tag 'Patient' is no DICOM keyword" in build(call, clinic, "--group-key", clinic / "key").output


def test_files_without_the_tag_are_counted_and_audit_takes_the_key(clinic: Path, call: Call) -> None:
    """Those whose patients nothing shows; a patient in two splits is found by the tag, without a word of whom."""
    untagged = (clinic / "source" / "ill" / "IM0000.dcm").rename(clinic / "source" / "ill" / "scan.dcm")
    untagged.write_bytes(saved(dataset(gray(), PatientID="", BurnedInAnnotation="NO")))
    done = build(call, clinic, "--group-key", clinic / "key")
    assert "1 of 12 images (such as scan.dcm) have no PatientID" in done.output
    assert "pattern" not in done.output
    for split, numbers in (("train", range(1, 7)), ("test", range(7, 12))):  # 6 and 7 are of one patient
        for number in numbers:
            file = next((clinic / "source").glob(f"*/IM{number:04}.dcm"))
            place = clinic / "by_split" / split / file.parent.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)
    looked = ("audit", clinic / "by_split", "--recipe", clinic / "set.yaml")
    assert "give --group-key FILE" in call(*looked).output
    done = call(*looked, "--group-key", clinic / "key")
    assert "11 images of 6 groups" in done.output
    assert "1 groups in several splits" in done.output
    assert "don't declare that the patient's identity was removed" in done.output
    assert not [secret for secret in SECRETS if secret in done.output.encode()]

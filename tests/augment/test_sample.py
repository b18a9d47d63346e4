"""The built-in sample: what is drawn, under which names, and that a seed fixes every byte."""

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from augment.sample import draw

PATIENT = re.compile(r"^(person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+)")
WHOLE_NAME = re.compile(r"(person\d+_(bacteria|virus)_\d+|(NORMAL2-)?IM-\d{4}-\d{4})\.jpeg")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of seed 0, drawn once; tests only read it."""
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    draw(folder)  # whose seed is 0 by default
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of seed 1."""
    folder = tmp_path_factory.mktemp("other") / "sample"
    draw(folder, seed=1)
    return folder


def images(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted."""
    return sorted(folder.rglob("*.jpeg"))


def patient(path: Path) -> str:
    """Whom an image shows, by its name."""
    match = PATIENT.match(path.name)
    assert match, path.name
    return match[1]


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_has_the_kermany_folders_and_their_imbalance(sample: Path) -> None:
    """Four pneumonias to a normal chest in train; nothing lies beside the images but the notice."""
    assert Counter(path.parent.relative_to(sample).as_posix() for path in images(sample)) == {
        "train/NORMAL": 40,
        "train/PNEUMONIA": 160,
        "val/NORMAL": 8,
        "val/PNEUMONIA": 8,
        "test/NORMAL": 120,
        "test/PNEUMONIA": 180,
    }
    assert [path for path in digests(sample) if not path.endswith(".jpeg")] == ["NOTICE"]


def test_names_are_kermany_names(sample: Path) -> None:
    """Every name is one of the set's patterns, and fits the class it is in."""
    for path in images(sample):
        assert WHOLE_NAME.fullmatch(path.name), path.name
        assert ("IM-" in path.name) == (path.parent.name == "NORMAL")


def test_about_two_thirds_of_the_pneumonias_are_bacterial(sample: Path) -> None:
    """In train and in test."""
    for split in ("train", "test"):
        kinds = ["bacteria" in path.name for path in images(sample / split / "PNEUMONIA")]
        assert 0.6 < sum(kinds) / len(kinds) < 0.75


def test_no_patient_is_in_two_splits_or_classes(sample: Path, other: Path) -> None:
    """The patient, read from the name, belongs to one folder, whatever the seed."""
    for folder in (sample, other):
        places = defaultdict(set)
        for path in images(folder):
            places[patient(path)].add(path.parent)
        assert all(len(place) == 1 for place in places.values())


def test_the_test_split_has_over_a_hundred_patients(sample: Path, other: Path) -> None:
    """So that intervals over patients are narrow enough for what the first run is to show."""
    for folder in (sample, other):
        assert len({patient(path) for path in images(folder / "test")}) > 100


def test_many_patients_have_several_images(sample: Path) -> None:
    """One to four images a patient, and over a third of the patients have more than one."""
    shots = Counter(patient(path) for path in images(sample))
    assert set(shots.values()) == {1, 2, 3, 4}
    assert sum(count > 1 for count in shots.values()) > len(shots) / 3


def test_the_same_seed_gives_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    """Names and contents, wherever it is drawn: missing parents are created, nothing else stays behind."""
    again = tmp_path / "not" / "yet" / "there"
    assert draw(again, seed=0) == len(images(again)) == 516
    assert digests(again) == digests(sample)
    assert list(again.parent.iterdir()) == [again]


def test_another_seed_gives_other_images(sample: Path, other: Path) -> None:
    """No picture of one seed is in the other's set."""
    assert not set(digests(sample).values()) & set(digests(other).values())


def test_no_two_images_are_identical(sample: Path) -> None:
    """Repeat X-rays of a patient differ too."""
    assert len({path.read_bytes() for path in images(sample)}) == 516


def test_images_are_gray_landscape_jpegs_of_many_sizes(sample: Path) -> None:
    """Each decodes to one channel, larger than the network's input, with dark and bright in it."""
    sizes = set()
    for path in images(sample):
        data = path.read_bytes()
        assert data.startswith(b"\xff\xd8\xff")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        assert (pixels.ndim, str(pixels.dtype)) == (2, "uint8")
        height, width = pixels.shape
        assert 440 <= height <= 760
        assert max(560, height + 1) <= width <= 900
        assert pixels.std() > 20
        sizes.add((width, height))
    assert len(sizes) > 100


def test_every_image_is_labelled_as_synthetic(sample: Path) -> None:
    """The burnt-in word is a third of the image wide, white on black, and still there at 224 x 224."""
    for path in images(sample):
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        corner = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)[:26, :90]
        columns = np.flatnonzero((corner > 200).any(axis=0) & (corner < 60).any(axis=0))
        assert columns.max() - columns.min() > 60, path


def test_the_notice_says_that_nobody_is_shown(sample: Path, other: Path) -> None:
    """One line that names the seed."""
    notice = "Synthetic chest phantoms drawn by Evenset (seed {}): not X-rays, no patients.\n"
    assert (sample / "NOTICE").read_text(encoding="utf-8") == notice.format(0)
    assert (other / "NOTICE").read_text(encoding="utf-8") == notice.format(1)


def test_refuses_an_existing_folder(tmp_path: Path) -> None:
    """The message is one line that names the folder, and the folder stays as it was."""
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError) as caught:
        draw(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

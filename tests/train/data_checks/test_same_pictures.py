"""Images that are the same picture under other labels."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.data_checks import leaks, same_pictures


def brute(thumbnails: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """How near the nearest image of another label is to each, where it is near enough, pair by pair."""
    pixels, found = thumbnails.astype(np.int16), dict[int, float]()
    allowed = leaks.limits(pixels) + 1e-9
    for row in range(len(labels)):
        apart = [
            np.abs(pixels[row] - pixels[other]).mean()
            for other in range(len(labels))
            if labels[other] != labels[row]
            and np.abs(pixels[row] - pixels[other]).mean() <= min(allowed[row], allowed[other])
        ]
        if apart:
            found[row] = min(apart)
    return found


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(2, 3))
def test_the_search_finds_what_comparing_every_pair_finds(seed: int, images: int, classes: int) -> None:
    """The nearest of another label, whatever is blank, equal, nearly equal or different."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (4, 256))
    pictures[0] = rng.integers(0, 256)
    noise = rng.choice([0, 2, 5, 8, 12], images)
    drawn = pictures[rng.integers(0, 4, images)] + rng.normal(size=(images, 256)) * noise[:, None]
    thumbnails = np.clip(drawn, 0, 255).astype(np.uint8)
    labels = rng.integers(0, classes, images)
    expected = brute(thumbnails, labels)
    found = same_pictures.search(thumbnails, labels)
    assert found.keys() == expected.keys()
    for row, other in found.items():
        assert labels[row] != labels[other]
        apart = np.abs(thumbnails[row].astype(int) - thumbnails[other]).mean()
        assert apart == pytest.approx(expected[row])


def test_a_copy_of_another_size_and_quality_is_the_same_picture() -> None:
    """And one of the same label is none that matters."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(3):
        image = Image.fromarray(rng.integers(0, 256, (4, 5), dtype=np.uint8)).resize(
            (200, 160), Image.Resampling.BICUBIC
        )
        for size, quality in (((200, 160), 95), ((150, 120), 60)):
            file = io.BytesIO()
            image.resize(size).save(file, "jpeg", quality=quality)
            files.append(leaks.thumbnail(file.getvalue()))
    found = same_pictures.search(np.stack(files), np.array([0, 1, 0, 0, 1, 2]))
    assert found == {0: 1, 1: 0, 4: 5, 5: 4}


@pytest.mark.slow
def test_many_images_take_no_table_of_all_pairs() -> None:
    """Thirty thousand that are as much alike as X-rays are, in seconds; and equal ones, which are all candidates."""
    rng = np.random.default_rng(0)
    alike = 120 + 50 * rng.normal(size=256) + rng.normal(size=(30_000, 20)) @ rng.normal(size=(20, 256)) * 6
    thumbnails = np.clip(alike + rng.normal(size=(30_000, 1)) * 12, 0, 255).astype(np.uint8)
    thumbnails[20_000:20_010] = thumbnails[:10]
    labels = np.arange(30_000) // 15_000
    found = same_pictures.search(thumbnails, labels)
    assert {row: found[row] for row in range(10)} == {row: 20_000 + row for row in range(10)}
    assert len(found) < 100
    blank = np.zeros((2000, 256), np.uint8)
    assert len(same_pictures.search(blank, np.arange(2000) % 2)) == 2000

"""What a recipe says of all images of a set alike: their format, and how they are brought to their size."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from augment.recipe import RecipeError, resolve
from augment.rendering.render import render
from augment.rendering.tasks import Style, Variant
from common.images.pixels import decode, decode_to
from common.images.resizing import resize
from tests.augment.conftest import Call

FITS = ("stretch", "pad", "crop")


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def wide() -> np.ndarray:
    """120 x 60: a white square in the middle of black, and gray at either end."""
    image = np.zeros((60, 120), np.uint8)
    image[:, :20] = image[:, 100:] = 128
    image[20:40, 50:70] = 255
    return image


def style(**settings: object) -> Style:
    return Style.of(resolve("r", settings, "r.yaml"))


def test_stretch_pad_and_crop() -> None:
    """Stretched, the square is a rectangle; padded and cropped it stays one; cropping loses the ends, padding nothing."""
    stretched, padded, cropped = (resize(wide(), (60, 60), fit) for fit in FITS)
    assert [int((each == 255).sum()) for each in (stretched, padded, cropped)] == [10 * 20, 10 * 10, 20 * 20]
    assert not padded[:15].any()
    assert not padded[45:].any()
    assert (padded[15:45, :10] == 128).all()
    assert 128 not in cropped
    assert all(each.shape == (60, 60) for each in (stretched, padded, cropped))


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (7, 5), (64, 48), (2000, 3)])
@pytest.mark.parametrize("size", [(32, 32), (48, 64), (1, 1)])
@pytest.mark.parametrize("fit", FITS)
def test_any_shape_comes_to_any_size(shape: tuple[int, int], size: tuple[int, int], fit: str) -> None:
    """However thin: the size is that asked for, gray or colour, and never empty."""
    for channels in ((), (3,)):
        image = np.full((*shape, *channels), 200, np.uint8)
        done = resize(image, size, fit)
        assert done.shape == (size[1], size[0], *channels)
        assert done.max() == 200


@pytest.mark.parametrize("fit", FITS)
def test_png_holds_the_very_pixels_that_predict_takes(fit: str) -> None:
    """Variant 0 as PNG is `decode_to`, to the last bit; 16 bits are kept at 8."""
    deep = (wide().astype(np.uint16) << 8) + 7
    for source in (encoded(wide()), encoded(deep), encoded(np.dstack([wide(), 255 - wide(), wide()]))):
        (data, applied), (varied, _) = render(
            source,
            [Variant("a", 0, 1), Variant("b", 1, 2)],
            style(size=40, fit=fit, format="png", transforms=[{"KerasAffine": {"rotation_range": 20}}]),
        )
        assert data[:4] == varied[:4] == b"\x89PNG"
        assert applied == ""
        assert np.array_equal(decode(data), decode_to(source, (40, 40), fit=fit))


def test_defaults_leave_older_sets_as_they_are() -> None:
    """What decides the bytes is described as before where nothing new is asked for."""
    assert style().settings == [[224, 224], 95, "[]", 178956970]
    assert style(fit="pad").settings == [[224, 224], 95, "[]", 178956970, {"fit": "pad"}]
    assert style(format="png", value_range=[0, 9]).settings[-2:] == [[0, 9], {"format": "png"}]


def test_one_of_draws_one_by_its_share() -> None:
    """Each variant has one of them or none, the record says which, and the same seed draws the same."""
    one_of = {
        "OneOf": {
            "p": 0.8,
            "transforms": [{"GaussianBlur": {"p": 0.9}}, {"KerasAffine": {"rotation_range": 9, "p": 0.1}}],
        }
    }
    variants = [Variant(str(number), number, number) for number in range(1, 101)]
    first, again = (render(encoded(wide()), variants, style(size=40, transforms=[one_of])) for _ in range(2))
    assert first == again
    drawn = [list(entry["OneOf"]) for _, applied in first for entry in json.loads(applied)]
    assert all(len(each) == 1 for each in drawn)
    names = [each[0] for each in drawn]
    assert 70 <= len(names) <= 90
    assert 1 <= names.count("KerasAffine") < names.count("GaussianBlur") / 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "fill"}, "fit is 'fill', expected one of stretch, pad, crop"),
        ({"format": "tiff"}, "format is 'tiff', expected one of jpeg, png"),
        (
            {"per_class": "most"},
            "per_class is 'most', expected largest, smallest or a whole number from 1 to 1,000,000,000",
        ),
        (
            {"transforms": [{"OneOf": {"transforms": ["HorizontalFlip"]}}]},
            "expected {transforms: [two or more], p: 0.5}",
        ),
        ({"transforms": ["OneOf"]}, "expected {transforms: [two or more], p: 0.5}"),
        (
            {"transforms": [{"OneOf": {"transforms": ["A", "B"], "n": 1}}]},
            "expected {transforms: [two or more], p: 0.5}",
        ),
    ],
)
def test_a_value_that_is_none_of_the_choices(settings: dict[str, object], message: str) -> None:
    """One line that names the setting, the value and the choices."""
    with pytest.raises(RecipeError) as caught:
        resolve("r", settings, "r.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "inner", [["HorizontalFlip", "Nonsense"], [{"HorizontalFlip": {"p": 0}}, {"VerticalFlip": {"p": 0}}]]
)
def test_a_one_of_that_cannot_be_made(inner: list[object]) -> None:
    """Its transforms are tried as all others are."""
    with pytest.raises(RecipeError, match=r"'Nonsense' is not known|not all 0"):
        render(encoded(wide()), [Variant("a", 1, 1)], style(size=40, transforms=[{"OneOf": {"transforms": inner}}]))


def test_a_set_of_pngs_is_built_verified_and_made_again(tmp_path: Path, make_source: Any, call: Call) -> None:
    """The names end in .png, and a rebuild and a repair come to the same bytes."""
    source = make_source(tmp_path / "source", {"train/A": 6, "train/B": 12})
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "size: 32\nper_class: largest\nformat: png\nfit: pad\ntransforms: [HorizontalFlip]\n", encoding="utf-8"
    )
    words = ("build", "--recipe", recipe, "--source", source, "--root", tmp_path)
    assert call(*words).exit_code == 0
    images = sorted((tmp_path / "data" / "augmented" / "r").rglob("*.png"))
    before = {path: path.read_bytes() for path in images}
    assert before
    assert not list((tmp_path / "data").rglob("*.jpg"))
    images[0].unlink()
    images[1].write_bytes(b"x")
    assert call("verify", tmp_path / "manifests" / "r.csv", "--root", tmp_path, "--repair").exit_code == 0
    assert {path: path.read_bytes() for path in images} == before
    assert "Up to date" in call(*words).output

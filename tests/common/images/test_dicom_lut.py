"""How stored values of DICOM files are shown where pydicom's pipeline is no reference, since it has them otherwise."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="python -m pip install -r requirements-dicom.txt")

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from common.images.pixels import UnreadableImage, decode
from tests.common.images.test_dicom import dataset, gray, palette, saved


def table(entries: list[int] | bytes, count: int, bits: int, first: int = 0) -> Sequence:
    """A modality or VOI LUT, of numbers or of bytes."""
    item = Dataset()
    item.LUTDescriptor = [count % 65536, first, bits]
    item.add_new("LUTData", "OW" if isinstance(entries, bytes) else "US", entries)
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    return Sequence([item])


def shown(pixels: np.ndarray, bits: int = 12, **tags: Any) -> np.ndarray:
    return decode(saved(dataset(pixels, bits, **tags)))


INVERSE = [255 - number // 16 for number in range(4096)]


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    "entries", [INVERSE, np.array(INVERSE, "<u2").tobytes(), bytes(INVERSE)], ids=["US", "OW", "packed"]
)
def test_tables_of_8_bits_may_have_more_than_256_entries(kind: str, entries: list[int] | bytes) -> None:
    """Each value has its own, whether entries stand in words or two share one."""
    assert np.array_equal(shown(gray(), **{kind: table(entries, 4096, 8)}), np.array(INVERSE)[gray()])


def test_values_beyond_a_table_have_its_ends() -> None:
    """Below the first value and above the last one, however far; and a negative first value may be written as unsigned."""
    entries = [16 * number for number in range(200, 300)]
    expected = np.rint(np.array(entries)[np.clip(gray(bits=16).astype(int) - 1000, 0, 99)] * (255 / 65535))
    assert np.array_equal(shown(gray(bits=16), 16, VOILUTSequence=table(entries, 100, 16, 1000)), expected)
    full = [16 * number for number in range(4096)]
    signed = shown(gray(signed=True), VOILUTSequence=table(full, 4096, 16, -2048))
    assert np.array_equal(shown(gray(signed=True), VOILUTSequence=table(full, 4096, 16, 2**16 - 2048)), signed)
    assert len(np.unique(signed)) > 200


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (table([1, 2], 4096, 16), "lookup table of 2 entries, its descriptor says 4,096"),
        (table([1, 2], 2, 0), "entries of 0 bits"),
    ],
)
def test_tables_that_cannot_be(sequence: Sequence, message: str) -> None:
    """By name."""
    with pytest.raises(UnreadableImage, match=message):
        shown(gray(), VOILUTSequence=sequence)


@pytest.mark.parametrize("pixels", [gray(bits=8).astype(np.uint8), gray()], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("kind", ["bytes", "8 bits in words", "16 bits", "16 bits that say 8"])
def test_palettes(pixels: np.ndarray, kind: str) -> None:
    """Entries of any width, and more than 256 of them: here they are the inverse, in gray."""
    count = 256 if pixels.dtype == np.uint8 else 4096
    inverse = 255 - np.arange(count) * 256 // count
    entries = inverse.astype(np.uint8 if kind == "bytes" else np.uint16) * (257 if kind.startswith("16") else 1)
    made = palette(pixels, entries, 16 if kind == "16 bits" else 8)
    made.BitsStored, made.HighBit = (8, 7) if count == 256 else (12, 11)
    assert np.array_equal(decode(saved(made)), inverse[pixels])


def test_a_negative_slope_inverts_with_a_window_and_without() -> None:
    """As the rescaled values are: where they are large, the image is bright."""
    tags = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    windowed = shown(gray(), **tags, WindowCenter=2048, WindowWidth=4096)
    assert np.abs(windowed.astype(int) - shown(gray(), **tags)).max() <= 1
    assert np.abs(windowed.astype(int) - (255 - shown(gray()))).max() <= 1


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_windows_narrower_than_1(function: str) -> None:
    """Of small values, as a quantitative image has them: the same picture as of large ones. LINEAR ones can't be."""
    large = shown(gray(), WindowCenter=1500, WindowWidth=800, VOILUTFunction=function)
    rescaled = {"RescaleSlope": "0.001", "RescaleIntercept": 0, "WindowCenter": "1.5", "WindowWidth": "0.8"}
    assert np.abs(shown(gray(), **rescaled, VOILUTFunction=function).astype(int) - large).max() <= 1
    assert np.array_equal(shown(gray(), **rescaled), shown(gray()))


WINDOW = {"WindowCenter": 1500, "WindowWidth": 800}


@pytest.mark.parametrize(
    ("empty", "others"),
    [
        ({"VOILUTSequence": Sequence([])}, WINDOW),
        ({"VOILUTSequence": Sequence([Dataset()])}, WINDOW),
        ({"ModalityLUTSequence": Sequence([])}, WINDOW),
        ({"VOILUTFunction": ""}, WINDOW),
        ({"RescaleSlope": None, "RescaleIntercept": None}, {}),
        ({"RescaleSlope": None, "RescaleIntercept": 5}, {"RescaleSlope": 1, "RescaleIntercept": 5}),
        ({"PixelAspectRatio": 1}, {}),
    ],
    ids=str,
)
def test_empty_elements_say_nothing(empty: dict[str, Any], others: dict[str, Any]) -> None:
    """As if they weren't there, beside others or alone."""
    assert np.array_equal(shown(gray(), **{**others, **empty}), shown(gray(), **others))


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_functional_groups_of_enhanced_objects(groups: str) -> None:
    """Rescaling, window and spacing of the one frame stand there, and mean what they mean in other files."""
    rescaling = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    window = {"WindowCenter": 40, "WindowWidth": 400}
    item = Dataset()
    for name, tags in (
        ("PixelValueTransformationSequence", rescaling),
        ("FrameVOILUTSequence", window),
        ("PixelMeasuresSequence", {"PixelSpacing": [2, 1]}),
    ):
        macro = Dataset()
        for keyword, value in tags.items():
            setattr(macro, keyword, value)
        setattr(item, name, Sequence([macro]))
    made = dataset(gray(), NumberOfFrames=1, SOPClassUID=uid.EnhancedCTImageStorage, **{groups: Sequence([item])})
    plain = dataset(gray(), **rescaling, **window, PixelSpacing=[2, 1])
    for value_range in (None, (-1000.0, 400.0)):
        assert np.array_equal(
            decode(saved(made), value_range=value_range), decode(saved(plain), value_range=value_range)
        )


def test_a_modality_table_takes_the_place_of_rescaling() -> None:
    """DICOM allows one of them."""
    tags = {"ModalityLUTSequence": table(list(range(4096)), 4096, 16), "WindowCenter": 2000, "WindowWidth": 2000}
    assert np.array_equal(shown(gray(), **tags, RescaleSlope=2, RescaleIntercept=-1000), shown(gray(), **tags))


def test_more_than_16_bits_need_a_window() -> None:
    """Without one each image would be scaled by its own maximum."""
    pixels = gray().astype(np.uint32)
    with pytest.raises(UnreadableImage, match="32-bit samples without a window; give value_range in the recipe"):
        shown(pixels, 32)
    expected = np.rint(gray() * (255 / 4095))
    assert np.array_equal(decode(saved(dataset(pixels, 32)), value_range=(0, 4095)), expected)
    assert shown(pixels, 32, WindowCenter=2048, WindowWidth=4096).max() == 255


def test_samples_in_the_high_bits_are_refused() -> None:
    """By the bits, of which the header says others than are stored."""
    with pytest.raises(UnreadableImage, match="HighBit 15, expected 11 for 12 stored bits"):
        shown(gray() << 4, HighBit=15)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_spacings_make_pixels_square(keyword: str) -> None:
    """Where no ratio says otherwise; what was measured may differ by a hundredth; more than max_pixels is refused."""
    assert shown(gray(), **{keyword: [2, 1]}).shape == (80, 48)
    assert shown(gray(), **{keyword: ["0.1390", "0.1388"]}).shape == (40, 48)
    assert shown(gray(), **{keyword: [2, 1]}, PixelAspectRatio=[1, 1]).shape == (40, 48)
    with pytest.raises(UnreadableImage, match="with square pixels it has 48 x 80, more than the limit of 2,000 pixels"):
        decode(saved(dataset(gray(), **{keyword: [2, 1]})), max_pixels=2000)

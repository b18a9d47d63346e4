"""Stored values of a DICOM image -> the values that are shown, as PS3.3 C.11 and C.7.6.3.1.5 have it.

The arithmetic of windows and rescaling is pydicom's, to the last bit. Tables are looked up here, since pydicom's indices
are of the entries' type, and wrap at 256 in tables of 8 bits.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.images.formats import UnreadableImage
from common.images.samples import Range

if TYPE_CHECKING:
    from pydicom import Dataset

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_COLOURS = ("Red", "Green", "Blue")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


def displayed(
    values: NDArray[np.int64], dataset: "Dataset", value_range: Range | None
) -> tuple[NDArray[np.float64], Range]:
    """Stored values after modality LUT and VOI LUT or window, and which results are black and white.

    Args:
        values: int64, shape (n,), ascending.
        dataset: the file's.
        value_range: takes the place of VOI LUT and window.

    Returns:
        float64, shape (n,), and the range.

    Raises:
        UnreadableImage: a table or a number that can't be, or no difference between black and white.
    """
    scaled, full = _scaled(values, dataset)
    span = value_range or Range(float(min(scaled[0], scaled[-1])), float(max(scaled[0], scaled[-1])))
    if value_range is None and _has_table(dataset):
        table = _table(dataset.VOILUTSequence[0], dataset)
        return table.at(scaled).astype(np.float64), table.range
    if value_range is None and (window := _window(dataset)):
        # A window's results span what the stored bits can hold, as pydicom's apply_windowing has it.
        span = _expect_difference(full)
        return _windowed(scaled.astype(np.float64), window, span), span
    if value_range is None and _modality(dataset).get("ModalityLUTSequence"):
        span = full
    return scaled.astype(np.float64), _expect_difference(span)


def stored_range(dataset: "Dataset") -> tuple[int, int]:
    """The least and the largest value that the stored bits can hold."""
    bits, is_signed = int(dataset.BitsStored), dataset.PixelRepresentation == 1
    return -(2 ** (bits - 1)) if is_signed else 0, 2 ** (bits - is_signed) - 1


def has_window(dataset: "Dataset") -> bool:
    """Whether a file says how it is to be shown; a width that can't be is none."""
    return _has_table(dataset) or _window(dataset) is not None


def palette_colours(values: NDArray[np.int64], dataset: "Dataset") -> NDArray[np.uint8]:
    """The colours of indices.

    Args:
        values: int64, shape (n,).
        dataset: a file's whose photometric interpretation is PALETTE COLOR.

    Returns:
        uint8, shape (n, 3), RGB.

    Raises:
        UnreadableImage: the palette has alpha, or its tables can't be.
    """
    if "AlphaPaletteColorLookupTableDescriptor" in dataset:
        raise UnreadableImage("a palette with alpha, which is not decoded; save the image as RGB")
    if "RedPaletteColorLookupTableData" in dataset:
        tables = [_colour(dataset, name) for name in _COLOURS]
        return np.stack([_levels(table.at(values), table.bits) for table in tables], axis=-1)
    from pydicom.pixels.processing import apply_color_lut  # for tables in segments

    count, _, bits = dataset.RedPaletteColorLookupTableDescriptor
    if bits == 8 and count != 256 and not 0 < count < 256:
        raise UnreadableImage("a palette of more than 256 entries of 8 bits in segments; save the image as RGB")
    found = apply_color_lut(values, dataset)
    return _levels(found, 8 * found.dtype.itemsize)


def _levels(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    scaled = values if bits == 8 else np.rint(values * (255 / (2**bits - 1)))
    return np.minimum(scaled, 255).astype(np.uint8)


class _Table(NamedTuple):
    """A lookup table: its entries, int64; the value that the first is of; and the bits that an entry has."""

    entries: NDArray[np.int64]
    first: int
    bits: int

    @property
    def range(self) -> Range:
        return Range(0.0, float(2**self.bits - 1))  # as all ranges of what is shown

    def at(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """The entries of values; the first and the last entry are those of all values below and above."""
        # A negative first value is written as an unsigned one by some: then no value at all reaches it.
        first = self.first - 2**16 if self.first >= 2**15 and self.first > values.max() else self.first
        return self.entries[np.clip(values - first, 0, len(self.entries) - 1).astype(np.int64)]


def _table(item: "Dataset", dataset: "Dataset") -> _Table:
    """A modality or VOI LUT."""
    table = _parsed(item.LUTDescriptor, item.LUTData, dataset)
    if table.bits != item.LUTDescriptor[2]:
        raise UnreadableImage("a lookup table with half of the entries that its descriptor says")
    return table


def _colour(dataset: "Dataset", colour: str) -> _Table:
    """The palette of one colour."""
    name = f"{colour}PaletteColorLookupTable"
    table = _parsed(dataset[f"{name}Descriptor"].value, dataset[f"{name}Data"].value, dataset)
    # 8 bits may stand in words; in some files all 16 of these count, whatever the descriptor says.
    return table._replace(bits=16) if table.entries.max() >= 2**table.bits else table


def _parsed(descriptor: Any, data: Any, dataset: "Dataset") -> _Table:
    """A table of 16-bit words, as bytes or as numbers; two entries of 8 bits may share a word, and have 8 bits then."""
    count, first, bits = (int(each) for each in descriptor)
    count = count & 0xFFFF or 2**16
    if not 1 <= bits <= 16:
        raise UnreadableImage(f"a lookup table with entries of {bits} bits, expected 1 to 16")
    if isinstance(data, bytes):
        is_big = dataset.file_meta.TransferSyntaxUID == _BIG_ENDIAN
        words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2" if is_big else "<u2").astype(np.int64)
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if len(words) >= count:
        return _Table(words[:count], first, bits)
    if len(words) == -(-count // 2):
        return _Table(words.astype("<u2").view(np.uint8)[:count].astype(np.int64), first, 8)
    raise UnreadableImage(f"a lookup table of {len(words):,} entries, its descriptor says {count:,}")


def _functional(dataset: "Dataset", macro: str) -> "Dataset | None":
    """What the functional groups of an enhanced object say of its only frame."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in dataset.get(groups) or ():
            if found := group.get(macro):
                return found[0]
            break
    return None


def spacing_of(dataset: "Dataset", keyword: str) -> Any:
    """The value of a spacing of pixels, of the file or of its functional groups."""
    measures = _functional(dataset, "PixelMeasuresSequence")
    return dataset.get(keyword) or (measures.get(keyword) if measures else None)


def _number(dataset: "Dataset", keyword: str) -> float | None:
    """The first value of an element; None where there is none."""
    from pydicom.multival import MultiValue

    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    if value in (None, ""):
        return None
    if not np.isfinite(number := float(value)):
        raise UnreadableImage(f"its {keyword} is not finite")
    return number


def _modality(dataset: "Dataset") -> "Dataset":
    """Where the modality LUT stands."""
    if dataset.get("ModalityLUTSequence") or _number(dataset, "RescaleSlope") is not None:
        return dataset
    return _functional(dataset, "PixelValueTransformationSequence") or dataset


def _scaled(values: NDArray[np.int64], dataset: "Dataset") -> tuple[NDArray[Any], Range]:
    """Values after the modality LUT, or after rescaling where there is none, and what the stored bits can become."""
    source, ends = _modality(dataset), np.array(stored_range(dataset))
    if source.get("ModalityLUTSequence"):
        table = _table(source.ModalityLUTSequence[0], dataset)
        return table.at(values), table.range
    if "RescaleSlope" in source and "RescaleIntercept" in source:
        slope, intercept = _number(source, "RescaleSlope"), _number(source, "RescaleIntercept")
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
        ends = ends * slope + intercept
        return values * slope + intercept, Range(float(ends.min()), float(ends.max()))  # a negative slope swaps them
    return values, Range(float(ends[0]), float(ends[1]))


def _has_table(dataset: "Dataset") -> bool:
    items = dataset.get("VOILUTSequence")
    return bool(items) and None not in (items[0].get("LUTDescriptor"), items[0].get("LUTData"))


class _Window(NamedTuple):
    center: float
    width: float
    function: str


def _window(dataset: "Dataset") -> _Window | None:
    """The first window, if there is one that can be: LINEAR ones are 1 wide at least, others wider than 0."""
    source = dataset
    if _number(source, "WindowCenter") is None or _number(source, "WindowWidth") is None:
        source = _functional(dataset, "FrameVOILUTSequence") or dataset
    center, width = _number(source, "WindowCenter"), _number(source, "WindowWidth")
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or width <= 0 or (width < 1 and function == "LINEAR"):
        return None
    if function not in _FUNCTIONS:
        raise UnreadableImage(f"its VOILUTFunction is none of {', '.join(_FUNCTIONS)}")
    return _Window(center, width, function)


def _windowed(values: NDArray[np.float64], window: _Window, span: Range) -> NDArray[np.float64]:
    """Values from black to white within a window, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width, function = window
    reach = span.high - span.low
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # to infinity, of which 1 is 0
            return reach / (1 + np.exp(-4 * (values - center) / width)) + span.low
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    below, above = values <= center - width / 2, values > center + width / 2
    between = ~(below | above)
    shown = np.where(below, span.low, span.high)
    shown[between] = ((values[between] - center) / width + 0.5) * reach + span.low
    return shown


def _expect_difference(span: Range) -> Range:
    if not span.low < span.high:
        raise UnreadableImage("its modality LUT leaves no difference between black and white")
    return span

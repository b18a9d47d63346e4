"""Samples deeper than 8 bits -> gray levels: which sample is black, which is white, and all between."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.images.formats import UnreadableImage

_STRIP = 2**20  # samples that are scaled at a time, so that no copy of a large image is made
_SIGNIFICANT = "declares {} significant bits in samples of {}; scaled by those"


class Range(NamedTuple):
    """The samples that stand for black and white."""

    low: float
    high: float


class Deep(NamedTuple):
    """Samples as they are stored, of an image that isn't of 8 bits.

    `values` has the shape (height, width, channels) and any numeric type, `bits` are those that the file declares
    for a sample. `declared` is the range that it declares with them, if it does; `premultiplied` and `alpha` say what
    the last channel is; `inverted` is MinIsWhite.
    """

    values: NDArray[np.generic]
    bits: int
    alpha: bool = False
    inverted: bool = False
    declared: Range | None = None
    declared_depth: int = 0  # as PNG's sBIT or a MaxSampleValue has it: the samples fit into fewer bits
    notes: tuple[str, ...] = ()


class Scaled(NamedTuple):
    """Gray levels of deep samples, uint8 of shape (height, width, channels).

    `largest` is the largest sample but for alpha; `few_bits` says whether all lie in the lower quarter of their range.
    """

    levels: NDArray[np.uint8]
    largest: float
    few_bits: bool
    notes: tuple[str, ...]


def levels(deep: Deep, value_range: Range | None) -> Scaled:
    """Scale deep samples to gray levels.

    Args:
        deep: as decoded.
        value_range: what the caller says is black and white; it goes before all that the file says.

    Raises:
        UnreadableImage: neither the file nor the caller says which samples are black and white.
    """
    colours = deep.values[..., :-1] if deep.alpha else deep.values
    least, most = _extremes(colours)
    notes = list(deep.notes)
    span = value_range or _span(deep, least, most, notes)
    scaled = np.empty(deep.values.shape, np.uint8)
    _scale(colours, span, scaled[..., : colours.shape[2]])
    if deep.inverted:
        np.subtract(255, scaled[..., : colours.shape[2]], out=scaled[..., : colours.shape[2]])
    if deep.alpha:
        alpha = deep.values[..., -1:]
        full = span if value_range is None and alpha.max() <= span.high else _full(deep)
        _scale(alpha, full, scaled[..., -1:])
    few = value_range is None and span.low == 0 and span.high >= 2**9 and 4 * most <= span.high
    return Scaled(scaled, most, few, tuple(notes))


def from_fewer_bits(pixels: NDArray[np.uint8], depth: int) -> tuple[NDArray[np.uint8], str]:
    """Scale samples that use the lower `depth` of their 8 bits to all 256 levels; and a note."""
    scaled = np.empty_like(pixels)
    _scale(pixels, Range(0, 2**depth - 1), scaled)
    return scaled, _SIGNIFICANT.format(depth, 8)


def _span(deep: Deep, least: float, most: float, notes: list[str]) -> Range:
    """The range of the samples by what the file declares."""
    kind = deep.values.dtype.kind
    advice = "save it with 8 or 16 bits, or set value_range: [black, white] in the recipe"
    if deep.declared and deep.declared.low <= least and most <= deep.declared.high:
        notes.append(
            f"scaled by its SMinSampleValue and SMaxSampleValue, {deep.declared.low:g} to {deep.declared.high:g}"
        )
        return deep.declared
    if kind == "f":
        raise UnreadableImage(f"float samples have no defined black and white (here {least:g} to {most:g}); {advice}")
    if least < 0 and deep.bits <= 16:
        raise UnreadableImage(f"signed samples ({least} to {most}) have no defined black and white; {advice}")
    if deep.bits > 16:
        if least < 0 or most > 65535:
            raise UnreadableImage(f"{deep.bits}-bit samples outside 0..65535 ({least} to {most}); {advice}")
        if most <= 255:
            raise UnreadableImage(
                f"{deep.bits}-bit samples of which the largest is {most}, so that white is anybody's guess; {advice}"
            )
        notes.append(f"{deep.bits}-bit samples, read as 16-bit ones")
        return Range(0, 65535)
    if 0 < deep.declared_depth < deep.bits and most < 2**deep.declared_depth:
        notes.append(_SIGNIFICANT.format(deep.declared_depth, deep.bits))
        return Range(0, 2**deep.declared_depth - 1)
    return _full(deep)


def _full(deep: Deep) -> Range:
    """All that the declared bits can hold from 0 up."""
    if deep.values.dtype.kind == "f":
        return Range(0, 1)
    return Range(0, 2 ** (deep.bits - (deep.values.dtype.kind == "i")) - 1)


def _extremes(values: NDArray[np.generic]) -> tuple[float, float]:
    if values.dtype.kind != "f":
        return int(values.min()), int(values.max())
    if not np.isfinite(values).any():
        raise UnreadableImage("holds no finite sample")
    return float(np.nanmin(values)), float(np.nanmax(values))


def _scale(values: NDArray[np.generic], span: Range, out: NDArray[np.uint8]) -> None:
    """Each sample to the nearest of 256 levels; what lies outside the range is black or white, what is NaN black."""
    rows = max(1, _STRIP // max(1, values[0].size))
    table = None
    if values.dtype in (np.uint8, np.uint16):
        table = _levels_of(np.arange(2 ** (8 * values.dtype.itemsize)), span)
    for start in range(0, len(values), rows):
        strip = values[start : start + rows]
        out[start : start + rows] = _levels_of(strip, span) if table is None else table[strip]


def _levels_of(values: NDArray[np.generic], span: Range) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float64) - span.low) * 255 / (span.high - span.low)
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0), 0, 255)).astype(np.uint8)

"""What passes between the main process and the workers: render tasks there, results back.

Light on purpose: the main process never imports what renders.
"""

from pathlib import Path
from typing import Any, NamedTuple

from augment.recipe import Recipe
from common.remote import Location


class Style(NamedTuple):
    """What all images of a set have in common."""

    size: tuple[int, int]  # width, height
    quality: int
    transforms: str  # JSON, as in Recipe
    max_pixels: int
    value_range: tuple[float, float] | None = None
    fit: str = "stretch"
    format: str = "jpeg"

    @classmethod
    def of(cls, recipe: Recipe) -> "Style":
        """What a recipe says of every image alike."""
        style = (recipe.size, recipe.quality, recipe.transforms, recipe.max_pixels, recipe.value_range)
        return cls(*style, recipe.fit, recipe.format)

    @property
    def settings(self) -> list[Any]:
        """The settings as JSON values; those that came later only where they are not the default, so that older sets stay."""
        size, quality, transforms, max_pixels, value_range, *later = self
        changed = {
            name: value
            for name, value in zip(("fit", "format"), later, strict=True)
            if value not in ("stretch", "jpeg")
        }
        ranged = [list(value_range)] if value_range else []
        return [list(size), quality, transforms, max_pixels, *ranged, *([changed] if changed else [])]


class Variant(NamedTuple):
    """One image to be: 0 is the source itself, only resized."""

    path: str  # relative to the image folder
    variant: int
    seed: int


class RenderTask(NamedTuple):
    """One source with all its variants that are to be rendered, into the image folder or, where it is None, handed back."""

    source: Location
    source_sha256: str
    images: Path | None
    variants: tuple[Variant, ...]
    style: Style


class Written(NamedTuple):
    """A written image: which one it is (a seed stands for source, number and set seed), and what came of it."""

    path: str
    seed: int
    transform: str
    width: int
    height: int
    sha256: str


class RenderResult(NamedTuple):
    """The result of a task: the images written, or why the source can't be used and whether its bytes are to blame."""

    written: list[Written]
    reason: str = ""
    unreadable: bool = False
    notes: tuple[str, ...] = ()  # on a source that can be used
    largest: float | None = None  # of its samples as stored, if they have more than 8 bits
    data: tuple[bytes, ...] = ()  # of the images, if they are handed back
    worker: str = ""  # of a cluster

"""One source's bytes -> its variants' bytes: a pure function of what it is given."""

import hashlib
import io
import json
import random
import stat
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augment.recipe import Recipe, RecipeError
from augment.rendering.affine import warp
from augment.rendering.render import render, run
from augment.rendering.tasks import RenderResult, RenderTask, Style, Variant
from augment.rendering.transforms import pipeline
from common.images import MAX_PIXELS
from common.images.pixels import UnreadableImage, decode, resize

AFFINE = {"KerasAffine": {"rotation_range": 20, "width_shift_range": 0.1, "height_shift_range": 0.1, "zoom_range": 0.2}}
FLIPS = [{"HorizontalFlip": {"p": 0.5}}, {"HorizontalFlip": {"p": 0.5}}]


def style(
    *transforms: dict[str, Any], size: tuple[int, int] = (64, 48), quality: int = 95, max_pixels: int = MAX_PIXELS
) -> Style:
    """What all images of a set have in common."""
    return Style(size, quality, json.dumps(transforms), max_pixels)


def variants(count: int, first: int = 0) -> list[Variant]:
    """Variants with seeds of their own."""
    return [Variant(f"train/A/a-v{n}.jpg", n, 1000 + n) for n in range(first, first + count)]


def picture(width: int = 160, height: int = 120, *, colour: bool = False) -> NDArray[np.uint8]:
    """A smooth image with structure everywhere."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
    return image if colour else np.ascontiguousarray(image[..., 0])


def encode(image: NDArray[np.uint8], format_: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format_, **options)
    return file.getvalue()


def test_rendering_is_a_pure_function() -> None:
    """Twice the same, in any order and any portion: a variant depends on the source, its own seed and the style only."""
    data, look = encode(picture()), style(AFFINE, *FLIPS, {"GaussNoise": {}})
    whole = render(data, variants(6), look)
    assert render(data, variants(6), look) == whole
    assert render(data, variants(6)[::-1], look) == whole[::-1]
    assert [render(data, [one], look)[0] for one in variants(6)] == whole
    assert len({jpeg for jpeg, _ in whole}) == 6


def test_the_state_of_the_process_decides_nothing() -> None:
    """Global random state and other pipelines that ran before change no byte."""
    data, look = encode(picture()), style(AFFINE, {"GaussNoise": {}})
    before = render(data, variants(3), look)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002  # the global state is the point
    render(encode(picture(90, 90)), variants(9), style(*FLIPS))
    render(encode(picture(90, 90, colour=True)), variants(9, first=7), look)
    assert render(data, variants(3), look) == before


def test_variant_0_is_the_source_only_resized() -> None:
    """No transform touches variant 0, and none is recorded."""
    ((jpeg, applied),) = render(encode(picture()), variants(1), style(AFFINE, {"InvertImg": {"p": 1}}))
    assert applied == ""
    plain = resize(picture(), (64, 48))
    assert cv2.PSNR(decode(jpeg), plain) > 35
    assert render(encode(picture()), variants(1), style())[0][0] == jpeg


@pytest.mark.parametrize("source", [encode(picture()), encode(np.dstack([picture()] * 3)), encode(picture(), "JPEG")])
def test_a_gray_source_gives_single_channel_jpegs(source: bytes) -> None:
    """Gray, or RGB with equal channels: every variant is stored as a JPEG of one channel, of the asked size."""
    for jpeg, _ in render(source, variants(4), style(AFFINE)):
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "L", (64, 48))


def test_colour_stays_colour() -> None:
    """A colour source gives colour JPEGs with red, green and blue where they were."""
    source = picture(colour=True)
    jpegs = [jpeg for jpeg, _ in render(encode(source), variants(4), style(AFFINE))]
    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 48))
    assert cv2.PSNR(decode(jpegs[0]), resize(source, (64, 48))) > 30


@given(*[st.integers(1, 90)] * 4, st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_size_becomes_the_asked_size(width: int, height: int, to_width: int, to_height: int, colour: bool) -> None:
    """From 1 x 1 up, larger or smaller, narrower or wider."""
    look = style(AFFINE, size=(to_width, to_height))
    for jpeg, _ in render(encode(picture(width, height, colour=colour)), variants(2), look):
        assert decode(jpeg).shape[:2] == (to_height, to_width)


def test_resizing_averages_when_it_shrinks() -> None:
    """A fine checkerboard becomes gray, not moire; an image of the right size is left as it is."""
    board = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    assert set(np.unique(resize(board, (48, 48)))) <= {127, 128}
    assert resize(board, (96, 96)) is board


def test_quality_is_the_recipes() -> None:
    """A lower quality gives fewer bytes."""
    sizes = [len(render(encode(picture()), variants(1), style(quality=quality))[0][0]) for quality in (30, 95)]
    assert sizes[0] < sizes[1] / 2


def test_a_large_jpeg_and_its_pixels_give_the_same_picture() -> None:
    """A JPEG that is decoded at a smaller scale looks like the same pixels from a PNG."""
    large = cv2.resize(picture(), (1600, 1200), interpolation=cv2.INTER_CUBIC)
    look = style(AFFINE, size=(160, 120))
    for (jpeg, applied), (png, same) in zip(
        *(render(encode(large, kind), variants(3), look) for kind in ("JPEG", "PNG")), strict=True
    ):
        assert applied == same
        assert cv2.PSNR(decode(jpeg), decode(png)) > 35


def test_the_limit_of_pixels_is_the_recipes() -> None:
    """A source that declares more pixels than the recipe allows is not decoded; one that declares as many is."""
    assert render(encode(picture(100, 50)), variants(1), style(max_pixels=5000))
    with pytest.raises(UnreadableImage, match="declares 100 x 51 pixels, more than the limit of 5,000"):
        render(encode(picture(100, 51)), variants(1), style(max_pixels=5000))


@pytest.mark.parametrize("colour", [False, True])
def test_what_is_recorded_is_what_was_applied(colour: bool) -> None:
    """The recorded parameters, given to KerasAffine again, make the same pixels; only JPEG stands between."""
    source = picture(64, 48, colour=colour)
    rendered = render(encode(source), variants(12, first=1), style(AFFINE, quality=100))
    for jpeg, applied in rendered:
        ((name, drawn),) = json.loads(applied)[0].items()
        assert name == "KerasAffine"
        assert set(drawn) == {"theta", "tx", "ty", "shear", "zx", "zy"}
        again = warp(source, **drawn)
        assert cv2.PSNR(decode(jpeg), again) > (35 if colour else 45)
        assert abs(drawn["theta"]) <= 20
    assert len({applied for _, applied in rendered}) == 12


def test_only_what_took_effect_is_recorded() -> None:
    """Two flips at even odds: none, one or both are recorded and applied, so their draws are not the same ones."""
    source = picture(64, 48)
    counts = {0: 0, 1: 0, 2: 0}
    for jpeg, applied in render(encode(source), variants(120, first=1), style(*FLIPS)):
        steps = json.loads(applied)
        counts[len(steps)] += 1
        assert all(step == {"HorizontalFlip": {}} for step in steps)
        assert cv2.PSNR(decode(jpeg), source[:, ::-1] if len(steps) == 1 else source) > 35
    assert 35 < counts[1] < 85
    assert min(counts.values()) > 10


def test_two_affine_maps_of_one_recipe_draw_on_their_own() -> None:
    """Each draws other numbers, and whether it acts at all, by its own p."""
    affine = {"KerasAffine": {"rotation_range": 10, "p": 0.5}}
    counts = {0: 0, 1: 0, 2: 0}
    for _, applied in render(encode(picture()), variants(120, first=1), style(affine, affine)):
        drawn = [step["KerasAffine"]["theta"] for step in json.loads(applied)]
        counts[len(drawn)] += 1
        assert len(set(drawn)) == len(drawn)
    assert 35 < counts[1] < 85
    assert min(counts.values()) > 10
    (_, never), (_, always) = (
        render(encode(picture()), variants(1, first=1), style({"KerasAffine": {"p": p}}))[0] for p in (0, 1)
    )
    assert (never, json.loads(always)[0].keys()) == ("[]", {"KerasAffine"})


def test_a_record_is_short_json_whatever_was_drawn() -> None:
    """Noise draws whole arrays: of those the record holds the shape, so that a manifest stays a table."""
    look = style({"GaussNoise": {"p": 1}}, {"ElasticTransform": {"p": 1}}, {"CoarseDropout": {"p": 1}})
    for _, applied in render(encode(picture()), variants(5, first=1), look):
        assert [next(iter(step)) for step in json.loads(applied)] == ["GaussNoise", "ElasticTransform", "CoarseDropout"]
        assert len(applied) < 2000
        assert "\n" not in applied


def test_albumentations_transforms_do_what_they_do_there() -> None:
    """A transform named as albumentations names it, with its parameters, is that transform."""
    source = picture(64, 48)
    look = style({"InvertImg": {"p": 1}}, {"Rotate": {"limit": [90, 90], "p": 1}}, quality=100)
    ((jpeg, _),) = render(encode(source), variants(1, first=1), look)
    turned = A.Rotate(limit=(90, 90), p=1)(image=255 - source)["image"]
    assert cv2.PSNR(decode(jpeg), turned) > 40


@pytest.mark.parametrize(
    "name",
    [
        *("HorizontalFlip", "Rotate", "Affine", "SafeRotate", "GridDistortion", "RandomResizedCrop", "CoarseDropout"),
        *("RandomBrightnessContrast", "RandomGamma", "CLAHE", "Equalize", "GaussianBlur", "GaussNoise", "Sharpen"),
    ],
)
def test_usual_transforms_work_on_gray_and_colour(name: str) -> None:
    """What people use for X-rays passes the trial on gray and RGB, and renders both."""
    needed = {"Affine": {"rotate": 20}, "RandomResizedCrop": {"size": [48, 64]}}
    look = style({name: {"p": 1.0, **needed.get(name, {})}})
    for colour in (False, True):
        plain, changed = render(encode(picture(colour=colour)), variants(2), look)
        assert plain[0] != changed[0]
        assert name in changed[1]


@pytest.mark.parametrize(
    ("transform", "named"),
    [
        (
            {"HorizontalFlop": {}},
            "transform 'HorizontalFlop' is not known; expected KerasAffine or a name from albumentations 2",
        ),
        ({"Compose": {"transforms": []}}, "transform 'Compose' is not known"),
        ({"SomeOf": {}}, "transform 'SomeOf' is not known"),
        ({"os": {}}, "transform 'os' is not known"),
        ({"__doc__": {}}, "transform '__doc__' is not known"),
        ({"": {}}, "transform '' is not known"),
        ({"ImageOnlyTransform": {}}, "transform ImageOnlyTransform"),
        ({"Rotate": {"limits": 10}}, 'transform Rotate does not take {"limits": 10}'),
        ({"Rotate": {"limit": "far"}}, 'transform Rotate does not take {"limit": "far"}'),
        ({"KerasAffine": {"rotation": 10}}, 'transform KerasAffine does not take {"rotation": 10}'),
        ({"KerasAffine": {"zoom_range": 1.5}}, 'transform KerasAffine does not take {"zoom_range": 1.5}'),
        ({"KerasAffine": {"rotation_range": -3}}, 'transform KerasAffine does not take {"rotation_range": -3}'),
        ({"KerasAffine": {"p": 7}}, 'transform KerasAffine does not take {"p": 7}'),
        ({"Normalize": {}}, "Normalize makes float32"),
        ({"ToFloat": {}}, "ToFloat makes float32"),
        ({"RandomCrop": {"height": 20, "width": 20}}, "RandomCrop makes uint8 (20, 20) of uint8 (48, 64)"),
        ({"Transpose": {}}, "Transpose makes uint8 (64, 48) of uint8 (48, 64)"),
        ({"ToRGB": {}}, "ToRGB"),
        ({"HistogramMatching": {}}, "transform HistogramMatching reads other files, which a recipe must not reach for"),
        ({"FDA": {}}, "transform FDA reads other files"),
        (
            {"FDA": {"reference_images": ["/etc/passwd"]}},
            'transform FDA does not take {"reference_images": ["/etc/passwd"]}',
        ),
        ({"TextImage": {"font_path": "/etc/passwd"}}, "transform TextImage reads other files"),
        ({"OverlayElements": {}}, "transform OverlayElements reads other files"),
    ],
)
def test_a_transform_that_makes_no_set_is_refused(transform: dict[str, Any], named: str) -> None:
    """Unknown, with unknown parameters, of another size or kind, or reading files: one line that names it."""
    with pytest.raises(RecipeError) as caught:
        pipeline(style(transform))
    assert str(caught.value).startswith(named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "meant"),
    [
        ({"HorizontalFlop": {}}, "HorizontalFlip"),
        ({"gaussnoise": {}}, "GaussNoise"),
        ({"KerasAfine": {}}, "KerasAffine"),
        ({"Rotate": {"limits": 10}}, "limit"),
        ({"KerasAffine": {"rotation": 10}}, "rotation_range"),
        ({"GaussianBlur": {"p": 1, "blurlimit": 3}}, "blur_limit"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_that_is_meant(transform: dict[str, Any], meant: str) -> None:
    """Of transforms and of their parameters, whatever the case."""
    with pytest.raises(RecipeError) as caught:
        pipeline(style(transform))
    assert str(caught.value).endswith(f"; did you mean {meant}?")


def test_what_albumentations_warns_of_is_not_printed(recwarn: pytest.WarningsRecorder) -> None:
    """Colour transforms warn of every gray image anew, that it has no colour."""
    look = style({"HueSaturationValue": {"p": 1.0}}, {"ToGray": {"p": 1.0}})
    for _ in range(3):
        render(encode(picture()), variants(2), look)
    assert [str(each.message) for each in recwarn] == []


def test_a_style_is_what_a_recipe_says_of_all_images() -> None:
    """Two recipes that differ in name, target or seed only have one style."""
    first = Recipe("one", transforms=json.dumps([AFFINE]), per_class=5, seed=1)
    assert Style.of(first) == Style.of(Recipe("two", transforms=json.dumps([AFFINE]), per_class=9, seed=2))
    assert Style.of(first) != Style.of(Recipe("one", transforms=json.dumps([AFFINE]), size=(96, 96)))


def job(tmp_path: Path, data: bytes, *transforms: dict[str, Any], sha256: str = "") -> RenderTask:
    """A source file with three variants to be written."""
    source = tmp_path / "source.png"
    source.write_bytes(data)
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return RenderTask(source, digest, tmp_path / "images", tuple(variants(3)), style(*transforms))


def test_a_job_writes_its_variants_and_says_what_they_are(tmp_path: Path) -> None:
    """Each variant under its path, with the bytes of `render`, and size, seed, transform and checksum as written."""
    data = encode(picture())
    (tmp_path / "images" / variants(3)[0].path).parent.mkdir(parents=True)
    outcome = run(job(tmp_path, data, AFFINE))
    assert outcome.reason == ""
    for written, wanted, (jpeg, applied) in zip(
        outcome.written, variants(3), render(data, variants(3), style(AFFINE)), strict=True
    ):
        path = tmp_path / "images" / wanted.path
        assert path.read_bytes() == jpeg
        assert written == (wanted.path, wanted.seed, applied, 64, 48, hashlib.sha256(jpeg).hexdigest())
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert len(list((tmp_path / "images").rglob("*.*"))) == 3


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty file (0 bytes)"), (b"notes", "not an image of a known format")]
)
def test_a_source_that_is_no_image_is_an_outcome(tmp_path: Path, data: bytes, reason: str) -> None:
    """No exception leaves the worker and no file is written: the outcome has the reason."""
    outcome = run(job(tmp_path, data))
    assert outcome.written == []
    assert outcome.reason.startswith(reason)
    assert not (tmp_path / "images").exists()
    with pytest.raises(UnreadableImage):
        render(data, variants(1), style())


def test_a_source_that_vanished_or_changed_is_an_outcome(tmp_path: Path) -> None:
    """Between scan and render a file may go or be edited: neither is rendered as what it was."""
    gone = job(tmp_path, encode(picture()))
    gone.source.unlink()
    assert run(gone) == RenderResult([], "can't be read: No such file or directory")
    changed = job(tmp_path, encode(picture()), sha256="0" * 64)
    assert run(changed) == RenderResult([], "its bytes are no longer those that were planned with")


def test_an_image_that_cannot_be_written_leaves_no_piece(tmp_path: Path) -> None:
    """Where the final name is taken, the job fails loudly and removes its temporary file."""
    wanted = job(tmp_path, encode(picture()))
    (tmp_path / "images" / wanted.variants[1].path / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="a-v1"):
        run(wanted)
    assert sorted(path.name for path in (tmp_path / "images" / "train" / "A").iterdir()) == ["a-v0.jpg", "a-v1.jpg"]

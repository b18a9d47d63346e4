"""Odd and broken sources through whole builds: each ends in a right image, a rejected file with a reason, or one line."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.images.pixels import decode
from manifests import contract

Array = NDArray[np.uint8]
QUARTERS = (30, 90, 160, 220)  # gray levels of the picture's quarters: above left, right, below left, right


def picture() -> Array:
    """48 x 32, each quarter of a gray level of its own, so that a turned or stretched one can be distinguished."""
    return np.kron(np.array(QUARTERS, np.uint8).reshape(2, 2), np.ones((16, 24), np.uint8))


def encode(image: Image.Image | Array, format_: str, **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format_, **options)
    return file.getvalue()


def rotated() -> bytes:
    """The picture stored lying on its side, with the EXIF entry that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(np.rot90(picture()), "JPEG", exif=exif, quality=95)


def transparent() -> bytes:
    """The picture with its first quarter transparent and white underneath."""
    colours = np.dstack([picture()] * 3 + [np.full((32, 48), 255, np.uint8)])
    colours[:16, :24] = (255, 255, 255, 0)
    return encode(colours, "PNG")


def bomb() -> bytes:
    """A PNG of 70 bytes that declares 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    pieces = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


JPEG = encode(picture(), "JPEG", quality=95)
NOISE = encode(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8), "JPEG")
ANIMATED = {"save_all": True, "append_images": [Image.fromarray(255 - picture())]}
CMYK = Image.fromarray(np.dstack([picture()] * 3)).convert("CMYK")

# File name -> its bytes, and the levels of the quarters that must come out, or the reason why nothing can.
FILES: dict[str, tuple[bytes, tuple[int, ...] | str]] = {
    "good.jpeg": (JPEG, QUARTERS),
    "empty.jpeg": (b"", "empty file (0 bytes)"),
    "truncated.jpeg": (NOISE[: len(NOISE) // 2], "truncated"),
    "only its head.jpeg": (JPEG[:20], "not an image of a known format"),
    "notes.jpeg": (b"these are notes", "not an image of a known format"),
    "jpeg inside.png": (JPEG + b"1", QUARTERS),
    "png inside.jpeg": (encode(picture(), "PNG"), QUARTERS),
    "no ending": (encode(picture(), "BMP"), QUARTERS),
    "cmyk.jpeg": (encode(CMYK, "JPEG", quality=95), QUARTERS),
    "16 bits.png": (encode(Image.fromarray(picture().astype(np.uint16) * 257), "PNG"), QUARTERS),
    "16 bits.tiff": (encode(Image.fromarray(picture().astype(np.uint16) * 257), "TIFF"), QUARTERS),
    "float.tiff": (
        encode(Image.fromarray(picture().astype(np.float32) / 255), "TIFF"),
        "float samples have no defined",
    ),
    "alpha.png": (transparent(), (0, *QUARTERS[1:])),
    "palette.gif": (encode(picture(), "GIF"), QUARTERS),
    "animated.gif": (encode(picture(), "GIF", **ANIMATED), "holds 2 images; save the one to use as a file of its own"),
    "one pixel.png": (encode(np.array([[77]], np.uint8), "PNG"), (77,) * 4),
    "bomb.png": (bomb(), "declares 30000 x 30000 pixels, more than the limit of 178,956,970"),
    "on its side.jpeg": (rotated(), QUARTERS),
    'it\'s, "so" it is.jpeg': (JPEG + b"2", QUARTERS),
    "=cmd|' -C calc'!A0.jpeg": (JPEG + b"3", QUARTERS),
    "@SUM(1).jpeg": (JPEG + b"4", QUARTERS),
    "-rf.jpeg": (JPEG + b"5", QUARTERS),
    "größe 肺 🫁.jpeg": (JPEG + b"6", QUARTERS),
    "line\nbreak.jpeg": (JPEG + b"7", "a name with control characters"),
    "a.png": (encode(picture(), "PNG", compress_level=1), QUARTERS),
    "a.jpg": (JPEG + b"8", QUARTERS),
    "A.JPG": (JPEG + b"9", QUARTERS),
    f"{'long ' * 49}.jpeg": (JPEG + b"10", QUARTERS),
}


@pytest.fixture
def source(tmp_path: Path, make_source) -> Path:
    """A good source folder; the odd files come on top."""
    counts = {"train/NORMAL": 4, "train/b": 7, "test/NORMAL": 2, "test/b": 2}
    return make_source(tmp_path / "source", counts, size=(48, 32))


@pytest.fixture
def build(tmp_path: Path, source: Path, call):
    """A function (recipe's text, options) -> result that builds the source folder as it is then."""

    def invoke(recipe: str = "size: [48, 32]\n", *options: str):
        (tmp_path / "set.yaml").write_text(recipe)
        return call("build", "--recipe", tmp_path / "set.yaml", "--source", source, "--root", tmp_path, *options)

    return invoke


def outcome(root: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The manifest of the set and what the card says was rejected."""
    card = contract.read_card(root / "manifests" / "set.csv")
    assert len({entry["source"] for entry in card["rejected"]}) == len(card["rejected"])
    return contract.read(root / "manifests" / "set.csv"), {e["source"]: e["reason"] for e in card["rejected"]}


def quarters(path: Path) -> list[int]:
    """The levels in the middles of the four quarters of a written image."""
    pixels = decode(path.read_bytes())
    assert pixels.shape == (32, 48)
    return [int(pixels[y, x]) for y in (8, 24) for x in (12, 36)]


def found_in(source: Path) -> set[str]:
    """Every file below a folder, as the card tells it."""
    paths = (Path(place) / name for place, _, names in os.walk(source) for name in names)
    return {path.relative_to(source).as_posix().replace("\n", "\\n") for path in paths}


def test_every_odd_file_is_a_right_image_or_rejected_with_a_reason(tmp_path: Path, source: Path, build) -> None:
    """One folder that holds them all: what can be read comes out as it should look, the rest is rejected with a reason."""
    for name, (data, _) in FILES.items():
        (source / "train" / "NORMAL" / name).write_bytes(data)
    result = build()
    assert result.exit_code == 0, result.output
    rows, rejected = outcome(tmp_path)
    written = rows.set_index("source")["path"]
    for name, (_, expected) in FILES.items():
        place = f"train/NORMAL/{name}".replace("\n", "\\n")
        if isinstance(expected, str):
            assert expected.lower() in rejected[place].lower()
            assert place not in written
        else:
            difference = np.subtract(quarters(tmp_path / written[place]), expected)
            assert np.abs(difference).max() <= 8, f"{name}: {difference}"
    assert not set(written.index) & set(rejected)
    assert set(written.index) | set(rejected) == found_in(source)
    assert f"Rejected {len(rejected)}, each with its reason in the card" in result.stdout


def test_odd_files_can_be_augmented(tmp_path: Path, source: Path, build) -> None:
    """Their variants, too, are images of the set's size, and the class meets its target without the broken ones."""
    for name, (data, _) in FILES.items():
        (source / "train" / "NORMAL" / name).write_bytes(data)
    assert (
        build("per_class: 100\nval: 0\nsize: [48, 32]\ntransforms: [{KerasAffine: {rotation_range: 9}}]").exit_code == 0
    )
    rows, _ = outcome(tmp_path)
    train = rows[(rows["split"] == "train") & (rows["label"] == "NORMAL")]
    usable = {f"train/NORMAL/{name}" for name, (_, expected) in FILES.items() if not isinstance(expected, str)}
    assert len(train) == 100
    assert usable < set(train["source"])
    for path in train["path"]:
        assert decode((tmp_path / path).read_bytes()).shape == (32, 48)


def test_equal_names_in_different_places_are_different_images(tmp_path: Path, source: Path, build) -> None:
    """x.png in every class and split: each is an image of its own, true to its own source."""
    levels = {}
    for number, place in enumerate(["train/NORMAL", "train/b", "test/NORMAL", "test/b", "val/NORMAL", "val/b"]):
        levels[f"{place}/x.png"] = 40 * number + 20
        (source / place).mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 32), 40 * number + 20).save(source / place / "x.png")
    assert build().exit_code == 0
    rows, rejected = outcome(tmp_path)
    assert rejected == {}
    for row in rows[rows["source"].isin(levels)].itertuples():
        assert np.abs(np.subtract(quarters(tmp_path / row.path), levels[row.source])).max() <= 2
    assert rows["source"].isin(levels).sum() == 6
    assert rows["path"].str.casefold().is_unique  # as on a file system that folds case


def test_links_are_taken_from_inside_the_source_only(tmp_path: Path, source: Path, build) -> None:
    """A link to a source is an image like that one; out of the folder, to nothing, or in a circle it is rejected."""
    folder = source / "train" / "NORMAL"
    (tmp_path / "secret.jpeg").write_bytes(JPEG)
    (folder / "inside.jpeg").symlink_to(min((source / "train" / "NORMAL").iterdir()))
    (folder / "outside.jpeg").symlink_to(tmp_path / "secret.jpeg")
    (folder / "nowhere.jpeg").symlink_to("nothing")
    (folder / "loop.jpeg").symlink_to("loop.jpeg")
    assert build().exit_code == 0
    rows, rejected = outcome(tmp_path)
    digests = rows.set_index("source")["sha256"]
    assert digests["train/NORMAL/inside.jpeg"] == digests["train/NORMAL/IM-0001-0001.jpeg"]
    assert rejected == {
        "train/NORMAL/outside.jpeg": "a link that leads out of the source folder",
        "train/NORMAL/nowhere.jpeg": "a link that leads nowhere",
        "train/NORMAL/loop.jpeg": "a link that leads nowhere",
    }
    (source / "train" / "circle").symlink_to(source / "train")
    assert build().exit_code == 0
    _, rejected = outcome(tmp_path)
    assert rejected["train/circle"] == "a link that leads back to a folder around it"


def unprivileged() -> list[str]:
    """What a command starts with so that permissions bind it, even where the tests run as root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root reads every file, and there is no setpriv to give that up")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("locked", ["train/NORMAL/IM-0001-0001.jpeg", "train/NORMAL"])
def test_what_may_not_be_read_is_rejected(tmp_path: Path, source: Path, environment, locked: str) -> None:
    """An image without read permission is rejected and made up for; a folder without it is one line of error."""
    (tmp_path / "set.yaml").write_text(
        "per_class: 20\naugment: [train, val]\nsize: 32\ntransforms: [{KerasAffine: {rotation_range: 9}}]"
    )
    (source / locked).chmod(0)
    command = [*unprivileged(), sys.executable, "-m", "augment", "build", "--recipe", "set.yaml", "--source", "source"]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        (source / locked).chmod(0o755)
    if locked.endswith(".jpeg"):
        assert (done.returncode, done.stderr) == (0, "")
        rows, rejected = outcome(tmp_path)
        assert rejected == {locked: "can't be read: Permission denied"}
        assert rows.groupby(["split", "label"]).size()["train"].to_dict() == {"NORMAL": 16, "b": 16}
    else:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "Error: source/train/NORMAL: can't be listed: Permission denied\n"
        assert not list(tmp_path.glob("manifests/set.*"))


def test_a_lower_limit_of_pixels_is_the_recipes(tmp_path: Path, source: Path, build) -> None:
    """With max_pixels, what declares more is rejected by that, whatever its format; a higher one is no danger."""
    for number, name in enumerate(["large.png", "large.jpeg", "large.tiff"]):
        Image.new("L", (100, 90), 50 + number).save(source / "train" / "NORMAL" / name)
    assert build("max_pixels: 8999\nsize: [48, 32]").exit_code == 0
    _, rejected = outcome(tmp_path)
    reason = "declares 100 x 90 pixels, more than the limit of 8,999"
    assert rejected == {f"train/NORMAL/large.{ending}": reason for ending in ("png", "jpeg", "tiff")}
    (source / "train" / "NORMAL" / "bomb.png").write_bytes(bomb())
    assert build("max_pixels: 1000000000\nsize: [48, 32]").exit_code == 0
    _, rejected = outcome(tmp_path)
    assert rejected.keys() == {"train/NORMAL/bomb.png"}
    assert "truncated" in rejected["train/NORMAL/bomb.png"]


@pytest.mark.parametrize("plain", [True, False], ids=["CLASS/*", "SPLIT/CLASS/*"])
def test_a_thousand_classes_are_a_set(tmp_path: Path, call, plain: bool) -> None:
    """1,000 classes of two tiny images each: all are in the manifest and in folders of their own."""
    for number in range(1000):
        for image in range(2):
            place = f"{number:03}" if plain else f"{('train', 'test')[image]}/{number:03}"
            (tmp_path / "source" / place).mkdir(parents=True, exist_ok=True)
            level = np.full((4, 4), number % 251, np.uint8)
            level[0, 0] = image
            (tmp_path / "source" / place / f"{image}.png").write_bytes(encode(level, "PNG") + b"%d" % number)
    (tmp_path / "set.yaml").write_text("size: 8\n")
    result = call("build", "--recipe", tmp_path / "set.yaml", "--source", tmp_path / "source", "--root", tmp_path)
    assert result.exit_code == 0, result.output
    rows, rejected = outcome(tmp_path)
    assert rejected == {}
    assert rows.groupby(["split", "label"]).size().to_dict() == {
        (split, f"{number:03}"): 1 for split in ("train", "test") for number in range(1000)
    }
    assert all((tmp_path / path).is_file() for path in rows["path"])


def test_a_class_with_one_image(tmp_path: Path, source: Path, build) -> None:
    """It can't be in train and val: one line that says so and what to do; without val it is enough to augment from."""
    (source / "train" / "rare").mkdir()
    Image.fromarray(picture()).save(source / "train" / "rare" / "only.png")
    recipe = "per_class: 10\naugment: [train, val]\nsize: 16\ntransforms: [{KerasAffine: {rotation_range: 9}}]\n"
    result = build(recipe)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "Error: rare in val: the recipe wants 2 images, but the class has 1 group and needs at least 2"
    )
    assert result.stderr.endswith("add images of other groups, or set val: 0\n")
    assert build(f"{recipe}val: 0\n").exit_code == 0
    rows, _ = outcome(tmp_path)
    rare = rows[rows["label"] == "rare"]
    assert (rare["split"] + rare["source"]).unique().tolist() == ["traintrain/rare/only.png"]
    assert sorted(rare["variant"]) == list(range(10))
    assert rare["sha256"].is_unique


def test_a_target_of_nothing_is_one_line(tmp_path: Path, build) -> None:
    """per_class: 0 names setting, value and what is expected."""
    result = build("per_class: 0\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "per_class is 0, expected largest, smallest or a whole number from 1 to 1,000,000,000" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("manifests/*"))


@pytest.mark.slow
def test_a_target_of_a_million_is_planned(tmp_path: Path, build) -> None:
    """per_class: 1000000, planned and counted but not rendered: the classes meet it exactly."""
    result = build(
        "per_class: 1000000\naugment: [train, val]\nsize: 16\ntransforms: [{KerasAffine: {}}]\n", "--dry-run"
    )
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    for split, label, sources, images in (("train", "NORMAL", "3", "800,000"), ("val", "NORMAL", "1", "200,000")):
        assert [split, label, sources, images] in [line[:4] for line in lines]
    assert not (tmp_path / "manifests").exists()

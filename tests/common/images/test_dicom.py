"""DICOM: pydicom's own pipeline is the reference, on its test files and on images written in each transfer syntax."""

import io
import struct
import subprocess
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="python -m pip install -r requirements-dicom.txt")

from pydicom import data as pydicom_data  # noqa: E402  # if it is there
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.pixels.utils import pixel_array  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

from common.images.dicom.file import read  # noqa: E402
from common.images.notes import FEW_BITS  # noqa: E402
from common.images.pixels import UnreadableImage, decode, header, picture, read_image  # noqa: E402

# By their place: pydicom's own functions would look for more of them on the network.
FILES = sorted((Path(pydicom_data.__file__).parent / "test_files").rglob("*.dcm"))
REJECTED = {  # of pydicom's files, those that are no single image that can be decoded
    "no DICOM": ("NoMeta", "no_meta.dcm", "rtstruct"),
    "no pixels": ("UN_sequence", "DICOMDIR", "empty_charset", "tsyntax", "priv_SQ", "no_meta_group", "SR", "report", "rtplan", "waveform"),
    "several frames": ("2frame", "ybr_color", "rtdose.", "rtdose_expb.", "rtdose_rle."),
    "32 bits": ("rtdose_1frame", "rtdose_expb_1frame", "rtdose_rle_1frame"),
    "12-bit lossy JPEG": ("JPEG-lossy", "JPGExtended"),
    "damaged": ("embedded-sequence", "badVR", "MR_truncated"),
}  # fmt: skip


def gray(shape: tuple[int, int] = (40, 48), bits: int = 12, *, signed: bool = False) -> np.ndarray:
    """A smooth image that uses all its bits."""
    down, across = np.mgrid[0 : shape[0], 0 : shape[1]]
    ramp = (np.sin(down / 7) + np.cos(across / 9) + 2) / 4 * (2**bits - 1)
    return np.rint(ramp - (2 ** (bits - 1) if signed else 0)).astype(np.int16 if signed else np.uint16)


def dataset(pixels: np.ndarray, bits: int = 12, **tags: Any) -> Dataset:
    """An uncompressed image of one gray channel, with more tags."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    made.PatientID, made.PatientName = "MRN123456", "Doe^Jane"
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * pixels.itemsize, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def saved(made: Dataset) -> bytes:
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def reference(data: bytes) -> np.ndarray:
    """Gray levels by pydicom's pipeline, spanning what the stored bits can hold."""
    read = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(pixel_array(read), read), read).astype(np.float64)
    bits, signed = read.BitsStored, read.PixelRepresentation == 1
    ends = np.array([-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1])
    low, high = sorted(
        float(end) * float(read.get("RescaleSlope", 1)) + float(read.get("RescaleIntercept", 0)) for end in ends
    )
    if "VOILUTSequence" in read:
        low, high = 0, 2 ** read.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "ModalityLUTSequence" in read:
        low, high = 0, 2 ** read.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    levels = np.clip((shown - low) / (high - low), 0, 1) * 255
    return 255 - levels if read.PhotometricInterpretation == "MONOCHROME1" else levels


def expect_as_reference(data: bytes) -> None:
    assert np.abs(decode(data).astype(float) - reference(data)).max() <= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pydicoms_own_files(path: Path) -> None:
    """Each is decoded as pydicom has it, to one gray level, or rejected in words that hold nothing of its header."""
    data = path.read_bytes()
    rejected = any(part in path.name for parts in REJECTED.values() for part in parts)
    if rejected:
        with pytest.raises(UnreadableImage) as caught:
            picture(data)
        read = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        for name in ("PatientID", "PatientName"):
            assert not read.get(name) or str(read.get(name)) not in str(caught.value)
        return
    read = pydicom.dcmread(path)
    found, declared = picture(data), header(data)
    assert (declared.format, declared.bits) == ("DICOM", read.BitsStored)
    if not any(name in read for name in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")):
        assert (declared.height, declared.width) == found.pixels.shape[:2]
    if read.PhotometricInterpretation.startswith("MONOCHROME"):
        expect_as_reference(data)
    elif read.BitsStored == 8 and read.PhotometricInterpretation != "PALETTE COLOR":
        assert np.array_equal(found.pixels, pixel_array(read))


TABLE = [min(65535, number * number // 256) for number in range(4096)]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 1500, "WindowWidth": 800},
        {"WindowCenter": [1500, 60], "WindowWidth": [800, 10]},
        {"WindowCenter": 1500, "WindowWidth": 800, "VOILUTFunction": "SIGMOID"},
        {
            "WindowCenter": 1500,
            "WindowWidth": 800,
            "VOILUTFunction": "LINEAR_EXACT",
            "PhotometricInterpretation": "MONOCHROME1",
        },
        {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400},
        {"RescaleSlope": "0.5", "RescaleIntercept": 3},
        {"WindowCenter": 1500, "WindowWidth": 0},
        {"PresentationLUTShape": "INVERSE"},
    ],
    ids=str,
)
@pytest.mark.parametrize("signed", [False, True])
def test_windows_and_rescaling(tags: dict[str, Any], signed: bool) -> None:  # a parameter
    """Every way from stored values to gray levels gives pydicom's, also where the window can't be."""
    made = dataset(gray(signed=signed), **tags)
    data = saved(made)
    if made.get("WindowWidth") == 0:
        del made.WindowWidth, made.WindowCenter
        assert np.array_equal(decode(data), decode(saved(made)))
    else:
        expect_as_reference(data)


@pytest.mark.parametrize("kind", ["ModalityLUTSequence", "VOILUTSequence"])
def test_lookup_tables(kind: str) -> None:
    """A table in place of slope and intercept, or of the window."""
    entry = Dataset()
    entry.LUTDescriptor, entry.LUTData = [4096, 0, 16], TABLE
    if kind == "ModalityLUTSequence":
        entry.ModalityLUTType = "US"
    made = dataset(gray(), **{kind: Sequence([entry])})
    made[kind][0]["LUTDescriptor"].VR = made[kind][0]["LUTData"].VR = "US"
    expect_as_reference(saved(made))


def test_a_value_range_takes_the_windows_place() -> None:
    """Black and white as the recipe has them, after the rescaling, and clipped."""
    made = dataset(gray(), RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=10)
    levels = decode(saved(made), value_range=(-500, 500))
    expected = np.clip((gray().astype(float) - 1500 + 1000) / 1000 * 255, 0, 255)
    assert np.abs(levels - expected).max() <= 1


@pytest.mark.parametrize(
    "syntax",
    ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian", "RLELossless",
     "JPEG2000Lossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEGBaseline8Bit"],
)  # fmt: skip
def test_every_transfer_syntax_gives_the_same_pixels(syntax: str, tmp_path: Path) -> None:
    """Of real gray levels: lossless ones to the last bit, JPEG to what its decoder gives."""
    pixels = gray()
    plain = saved(dataset(pixels, WindowCenter=2000, WindowWidth=3000))
    if syntax == "JPEGBaseline8Bit":
        small = (pixels >> 4).astype(np.uint8)
        made = dataset(small, bits=8)
        made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        made.PixelData = encapsulate([cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()])
        assert np.abs(decode(saved(made)).astype(int) - small).max() <= 3
        return
    if syntax in ("JPEGLosslessSV1", "JPEGLSLossless"):
        (tmp_path / "plain.dcm").write_bytes(plain)
        data = by_gdcm(tmp_path / "plain.dcm", tmp_path / "packed.dcm", syntax)
    else:
        read = pydicom.dcmread(io.BytesIO(plain))
        if syntax in ("RLELossless", "JPEG2000Lossless"):
            read.compress(getattr(uid, syntax))
        elif syntax == "ExplicitVRBigEndian":
            read.PixelData = pixels.astype(">u2").tobytes()
        read.file_meta.TransferSyntaxUID = getattr(uid, syntax)
        file = io.BytesIO()
        is_big = syntax == "ExplicitVRBigEndian"
        pydicom.dcmwrite(
            file, read, implicit_vr=syntax.startswith("Implicit"), little_endian=not is_big, force_encoding=True
        )
        data = file.getvalue()
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == getattr(uid, syntax)
    assert np.array_equal(decode(data), decode(plain))


def by_gdcm(plain: Path, packed: Path, syntax: str) -> bytes:
    """A file in a transfer syntax that pydicom has no encoder for."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    kind = {
        "JPEGLosslessSV1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        "JPEGLSLossless": gdcm.TransferSyntax.JPEGLSLossless,
    }
    change.SetTransferSyntax(gdcm.TransferSyntax(kind[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(packed))
    assert writer.Write()
    return packed.read_bytes()


def test_pixels_that_are_not_square_are_made_so() -> None:
    """Twice as high as wide: the image becomes twice as high."""
    assert decode(saved(dataset(gray(), PixelAspectRatio=[2, 1]))).shape == (80, 48)
    assert decode(saved(dataset(gray(), PixelAspectRatio=[1, 2]))).shape == (40, 96)
    with pytest.raises(UnreadableImage, match="declares pixels of 1 : 1000000"):
        decode(saved(dataset(gray(), PixelAspectRatio=[1, 1_000_000])))


def test_little_of_the_range_is_noted() -> None:
    """10 of 16 bits used and no window: the image is dark, and the note says so; with a window there is nothing to note."""
    dark = gray(bits=10)
    assert picture(saved(dataset(dark, bits=16))).notes == (FEW_BITS,)
    assert picture(saved(dataset(dark, bits=16))).largest == dark.max()
    assert picture(saved(dataset(dark, bits=16, WindowCenter=512, WindowWidth=1024))).notes == ()


def frame_of_other_size() -> bytes:
    """A JPEG of 4000 x 4000 in a file that declares 48 x 40."""
    made = dataset(gray().astype(np.uint8), bits=8)
    made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    made.PixelData = encapsulate([cv2.imencode(".jpg", np.zeros((4000, 4000), np.uint8))[1].tobytes()])
    return saved(made)


def element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of the meta information, in Explicit VR Little Endian."""
    value += b"\0" * (len(value) % 2)
    length = struct.pack("<HI" if vr == b"OB" else "<H", *((0, len(value)) if vr == b"OB" else (len(value),)))
    return struct.pack("<HH2s", 2, number, vr) + length + value


def deflated(
    made: Dataset, padding: int = 0, instance: bytes = b"1.2.3", says: int | None = None, *, whole: bool = True
) -> bytes:
    """A deflated file, with megabytes of zeros after its pixels; `says` is the length that its meta information declares."""
    plain = saved(made)
    body = plain[144 + struct.unpack_from("<I", plain, 140)[0] :]
    meta = element(1, b"OB", b"\0\1") + element(2, b"UI", b"1.2.840.10008.5.1.4.1.1.1.1") + element(3, b"UI", instance)
    meta += element(0x10, b"UI", uid.DeflatedExplicitVRLittleEndian.encode())
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    if padding:
        body += struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, padding * 2**20)
    packed = packer.compress(body) + b"".join(packer.compress(bytes(2**20)) for _ in range(padding)) + packer.flush()
    length = element(0, b"UL", struct.pack("<I", len(meta) if says is None else says))
    return bytes(128) + b"DICM" + length + meta + (packed if whole else packed[:-20])


def frames(count: int, compressed: bool) -> bytes:  # a parameter
    """Several images in a file that doesn't say so."""
    made = dataset(gray(bits=8).astype(np.uint8), bits=8)
    made.PixelData *= count
    if compressed:
        made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        packed = cv2.imencode(".jpg", gray(bits=8).astype(np.uint8))[1].tobytes()
        made.PixelData = encapsulate([packed + b"\0" * (len(packed) % 2)] * count)
    return saved(made)


def long_rle() -> bytes:
    """An RLE frame of a segment that becomes 512 MB."""
    made = dataset(gray(bits=8).astype(np.uint8), bits=8)
    made.file_meta.TransferSyntaxUID = uid.RLELossless
    made.PixelData = encapsulate([struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 4_000_000])
    return saved(made)


def many_components() -> bytes:
    """A JPEG 2000 code stream of a few kilobytes that declares 4000 components of 48 x 40."""
    size = struct.pack(">HIIIIIIIIH", 0, 48, 40, 0, 0, 48, 40, 0, 0, 4000) + b"\7\1\1" * 4000
    made = dataset(gray(bits=8).astype(np.uint8), bits=8)
    made.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    made.PixelData = encapsulate([b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + b"\xff\xd9"])
    return saved(made)


def palette(
    pixels: np.ndarray, entries: np.ndarray, bits: int, first: int = 0, colours: str = "Red Green Blue"
) -> Dataset:
    """Indices, by default of gray colours."""
    made = dataset(pixels, bits=8 * pixels.itemsize, PhotometricInterpretation="PALETTE COLOR")
    for colour in colours.split():
        name = f"{colour}PaletteColorLookupTable"
        setattr(made, f"{name}Descriptor", [len(entries) % 65536, first, bits])
        made[f"{name}Descriptor"].VR = "SS" if first < 0 else "US"
        setattr(made, f"{name}Data", entries.tobytes())
    return made


HOSTILE = {
    "truncated": (lambda: saved(dataset(gray()))[:-200], "damaged DICOM, or of a kind that is not decoded"),
    "cut in the header": (lambda: saved(dataset(gray()))[:300], "DICOM without pixels"),
    "too many pixels": (lambda: saved(dataset(gray(), Rows=60_000, Columns=60_000)), "more than the limit"),
    "several frames": (lambda: saved(dataset(gray(), NumberOfFrames=2)), "holds 2 images"),
    "frame of another size": (frame_of_other_size, "its frame is of 4000 x 4000 pixels, its header says 48 x 40"),
    "deflated bomb": (lambda: deflated(dataset(gray()), 300), "inflates to more than"),
    "deflated bomb, false length": (lambda: deflated(dataset(gray()), 300, says=0x7FFFFFF0), "inflates to more than"),
    "deflated bomb, long UID": (lambda: deflated(dataset(gray()), 300, b"1.2" + b".4" * 501), "inflates to more than"),
    "deflated and cut": (lambda: deflated(dataset(gray()), whole=False), "its deflated data set is truncated"),
    "two frames": (lambda: frames(2, compressed=False), "holds 2 images"),
    "two JPEG frames": (lambda: frames(2, compressed=True), "holds 2 images"),
    "long RLE": (long_rle, "RLE frame has 8,000,064 bytes, more than the 3,906"),
    "many components": (many_components, "its frame has 4000 samples a pixel, its header says 1"),
    "palette with alpha": (
        lambda: saved(
            palette(gray(bits=8).astype(np.uint8), np.arange(256, dtype=np.uint8), 8, colours="Red Green Blue Alpha")
        ),
        "a palette with alpha",
    ),
    "HSV": (lambda: saved(dataset(gray(), PhotometricInterpretation="HSV")), "HSV photometric interpretation"),
    "no such colours": (
        lambda: saved(dataset(gray(), PhotometricInterpretation="MRN123456")),
        "unknown photometric interpretation",
    ),
    "no pixels": (lambda: saved(without_pixels()), "DICOM without pixels"),
    "bits that are none": (lambda: saved(dataset(gray(), BitsStored=0)), "expected -1 for 0 stored bits"),
}


def without_pixels() -> Dataset:
    made = dataset(gray())
    del made.PixelData, made.Rows, made.Columns
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_files(name: str) -> None:
    """A reason, no crash, and nothing of the header in it."""
    make, message = HOSTILE[name]
    with pytest.raises(UnreadableImage, match=message) as caught:
        picture(make(), max_pixels=10_000_000)
    printed = "".join(traceback.format_exception(caught.value))
    assert "MRN123456" not in printed.replace('"MRN123456"', "")  # but for this file's own lines
    assert "Doe" not in printed


MEASURED = """
import sys
from common.images.dicom.file import read
import pydicom
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
with open(sys.argv[1], "rb") as file:
    read(file, 0, stop_before_pixels=True, tags=["PatientID"])
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_scan_inflates_a_header_and_no_more(tmp_path: Path) -> None:
    """A bomb of 600 MB, which a scan reads before any image is decoded; the header is there none the less."""
    (tmp_path / "bomb.dcm").write_bytes(deflated(dataset(gray()), 600))
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path / "bomb.dcm")], capture_output=True, check=True)
    assert int(done.stdout) < 250
    with (tmp_path / "bomb.dcm").open("rb") as file:
        assert read(file, 0, stop_before_pixels=True, tags=["PatientID"]).PatientID == "MRN123456"


def test_headers_of_any_length_and_deflated_ones_are_read() -> None:
    """As audit reads them: what stands before the pixels may be larger than any image."""
    long = dataset(gray())
    long.add_new(0x00091001, "OB", bytes(5 * 2**20))
    for data in (saved(long), deflated(long)):
        assert header(data) == ("DICOM", "L", 12, 48, 40)
        assert np.array_equal(decode(data), decode(saved(dataset(gray()))))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lack_of_memory_is_no_damage(tmp_path: Path) -> None:
    """OpenJPEG calls it broken data; no image is blamed for what the machine lacks."""
    read_back = pydicom.dcmread(io.BytesIO(saved(dataset(np.tile(gray(bits=8).astype(np.uint8), (75, 62)), bits=8))))
    read_back.compress(uid.JPEG2000Lossless)
    file = io.BytesIO()
    read_back.save_as(file)
    (tmp_path / "large.dcm").write_bytes(file.getvalue())
    done = subprocess.run([sys.executable, "-c", LACKING, str(tmp_path / "large.dcm")], capture_output=True, check=True)
    assert done.stdout.strip() == b"MemoryError"


LACKING = """
import resource, sys
from pathlib import Path
from common.images.pixels import UnreadableImage, decode
import pydicom.pixels.utils, openjpeg
data = Path(sys.argv[1]).read_bytes()
held = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (held + 30 * 2**20, resource.RLIM_INFINITY))
try:
    decode(data)
except (MemoryError, UnreadableImage) as error:
    print(type(error).__name__)
"""


def test_a_file_is_read_by_its_content(tmp_path: Path) -> None:
    """Whatever its name, and where its first 128 bytes are a TIFF's."""
    data = saved(dataset(gray()))
    (tmp_path / "scan.jpg").write_bytes(b"II*\0" + data[4:])
    assert np.array_equal(decode(read_image(tmp_path / "scan.jpg")), decode(data))

"""What DICOM costs beside its decoder: gray levels at 224 x 224 against pydicom's pixel_array alone, by transfer syntax.

    python benchmarks/dicom.py FOLDER [IMAGES]

FOLDER holds full-size X-rays, which are written as 12-bit DICOM files first, with a window. Both are timed in turn, image by
image; the ratio is that of the sums. Needs requirements-dicom.txt.
"""

import io
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import pixel_array

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common.images.pixels import decode_to

SYNTAXES = ("ExplicitVRLittleEndian", "RLELossless", "JPEG2000Lossless")


def written(pixels: np.ndarray, syntax: str) -> bytes:
    """A DICOM file of an 8-bit image, as 12 bits."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape, 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.WindowCenter, made.WindowWidth = 2000, 3500
    made.PixelData = (pixels.astype(np.uint16) << 4).tobytes()
    if syntax != "ExplicitVRLittleEndian":
        made.compress(getattr(uid, syntax), generate_instance_uid=False)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def main() -> None:
    """Measure, and print a line for each transfer syntax."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.rglob("*.jp*g"))[:count]]
    cv2.setNumThreads(1)
    for syntax in SYNTAXES:
        files = [written(image, syntax) for image in images]
        decode_to(files[0], (224, 224))  # imports
        ours = floor = 0.0
        for data in files:
            begun = time.perf_counter()
            pixel_array(dcmread(io.BytesIO(data)))
            middle = time.perf_counter()
            decode_to(data, (224, 224))
            floor, ours = floor + middle - begun, ours + time.perf_counter() - middle
        print(f"{syntax}: {len(files)} images, {ours / floor:.2f} x the decoder alone")


if __name__ == "__main__":
    main()

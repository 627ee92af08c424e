"""What a file is: told by its ending, or by its first bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENDINGS = _words(
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .jpx .avif "
    ".ico .heic .heif"
)
OTHER = _words(
    ".txt .json .jsonl .md .csv .tsv .xml .yaml .yml .html .htm .py .ipynb .log .db .ini .cfg .toml .zip .gz .tar "
    ".tgz .pdf .npy .npz .h5 .pt .pth .onnx .parquet .arrow .pkl .mat .mp4 .avi .mov .svg .doc .docx .xlsx .lst .rst "
    ".sh"
)

# Images that are not read here: what they are, and what helps.
CONVERT = "convert it to JPEG or PNG"
UNREAD: dict[str, str] = {
    **dict.fromkeys(
        _words(
            ".nef .nrw .dng .cr2 .cr3 .crw .arw .srf .sr2 .raf .orf .rw2 .raw .pef .srw .3fr .fff .iiq .kdc .dcr .mrw "
            ".x3f .erf .mef .mos .rwl .gpr"
        ),
        "a camera's raw file",
    ),
    ".jxl": "JPEG XL",
    ".tga": "TGA",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".psd": "a Photoshop file",
    ".psb": "a Photoshop file",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".dds": "DDS",
    ".pcx": "PCX",
    ".pfm": "a float map",
    ".xcf": "a GIMP file",
}

MAGIC: tuple[tuple[bytes, str], ...] = (  # regular expressions at the start of a file
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM....\x00\x00\x00\x00", "BMP"),
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF"),
    (rb"P[1-6]\s", "PPM"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"....ftyp(?:avif|avis)", "AVIF"),
    (rb"\x00\x00\x01\x00[\x01-\x40]\x00", "ICO"),
    (rb"....ftyp(?:heic|heix|hevc|mif1|msf1)", "HEIC"),
)
ALSO: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", f"JPEG XL, which is not read: {CONVERT}"),
    (rb"8BPS", f"a Photoshop file, which is not read: {CONVERT}"),
    (rb"v/1\x01", f"OpenEXR, which is not read: {CONVERT}"),
    (rb".{128}DICM", f"DICOM, which is not read: {CONVERT}"),
    (rb"....ftypcrx|FUJIFILMCCD-RAW|IIRO|IIRS|MMOR|IIU\x00|FOVb", f"a camera's raw file, which is not read: {CONVERT}"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the image itself: run 'git lfs pull'"),
    (rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<svg", "an SVG drawing, not pixels: convert it to PNG"),
    (rb"%PDF", "a PDF, not an image: convert its pages to PNG"),
    (rb"\s*<(?i:!doctype html|html|\?xml)", "a web page, not an image"),
    (rb"PK\x03\x04", "a ZIP archive, not an image: unpack it and give the folder"),
    (rb"\x1f\x8b", "compressed by gzip: unpack it first"),
    (rb"\xef\xbf\xbd", "spoilt by a program that took it for text; the pixels are lost"),
    (rb"%!PS", "PostScript, which is not read: convert it to PNG"),
    (rb"....ftyp", "a video, not an image"),
    (rb"\x93NUMPY", "a NumPy array file: give the array itself"),
    (rb"PAR1", "a parquet file, not an image"),
    (rb"[\x09\x0a\x0d\x20-\x7e]*\Z", "text, not an image"),
)


def sniff(head: bytes) -> str | None:
    """The image format that the first bytes of a file announce, None for no image."""
    return next((name for magic, name in MAGIC if re.match(magic, head, re.DOTALL)), None)


def is_not(head: bytes) -> str:
    """What the first bytes of a file that is no image say it is, for people."""
    return next((why for magic, why in ALSO if re.match(magic, head, re.DOTALL)), "not an image that Pillow reads")


def unread(path: str | os.PathLike[str]) -> str:
    """Why a file with this ending, which is of an image, is not read; "" for other endings."""
    kind = UNREAD.get(Path(path).suffix.lower(), "")
    return f"{kind}, which is not read: {CONVERT}" if kind else ""


def raw_kind(image: Any, head: bytes) -> str:
    """What kind of camera raw file an opened TIFF is; "" for a plain one."""
    if image.format != "TIFF":
        return ""
    tags = image.tag_v2
    if 50706 in tags:  # DNGVersion
        return "DNG"
    if head[8:10] == b"CR":
        return "CR2"
    preview = tags.get(254) == 1 and 330 in tags  # a reduced copy, and other images in sub-directories
    sensor = tags.get(262) in (32803, 34892)  # a colour filter's values
    maker = str(tags.get(271, "")).strip("\0 ").split(" ")[0].title()
    return f"{maker or 'TIFF'} raw" if preview or sensor else ""


def is_image_file(path: Path) -> bool:
    """Whether a file is meant to be an image: its ending says so, or else its first bytes do."""
    ending = path.suffix.lower()
    if ending in ENDINGS:
        return True
    if ending in OTHER:
        return False
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return sniff(file.read(64)) is not None
    except OSError:
        return False

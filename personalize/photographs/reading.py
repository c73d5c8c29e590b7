"""Photographs: a file from somebody's camera in, an upright sRGB picture without metadata out.

Nothing here writes to the file that is read. Whatever cannot be used raises `Unusable`, whose message is the reason
as the quality table shows it. Decoders are held to an allow-list of formats, chosen by the file's first bytes and not
by its name.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from personalize.files import write_bytes

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif")
READ: Final = "jpg, png, webp, heic and avif are read"
FORMATS: Final = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")
"""What may be decoded. JPEG's decoder also takes MPO, the JPEG to which phones append a depth or gain map; HEIF comes
from pillow-heif."""
SEVERAL_PICTURES: Final = ("MPO", "HEIF")
"""Formats that may hold more pictures than the photograph, which is the one that is marked as primary."""
MAX_MEGAPIXELS: Final = 100
MAX_MEGABYTES: Final = 200

_COLOUR_MODES: Final = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_EXIF_IFD, _INTEROP_IFD = 0x8769, 0xA005
ORIENTATION: Final = 0x0112
_ADOBE_RGB: Final = "R03"  # EXIF 2.3, InteroperabilityIndex of DCF optional colour space
_HDR_TRANSFERS: Final = {16: "PQ", 18: "HLG"}  # ITU-T H.273, TransferCharacteristics
_SRGB_PRIMARIES: Final = (1, 2, 5, 6)  # ITU-T H.273, ColourPrimaries: BT.709, unspecified, and two too near to tell


class Unusable(ValueError):
    """The reason a file cannot be used as a photograph, in words for the person who took it."""


@dataclass(frozen=True)
class Photograph:
    """An upright RGB image in sRGB with an empty `info`; `notes` say what had to be done to make it so.

    alpha: L of the same size, where parts were transparent. orientation: EXIF's, by which it was turned.
    """

    image: Image.Image
    notes: tuple[str, ...]
    alpha: Image.Image | None = None
    orientation: int = 1


def read_photograph(
    path: Path, *, max_megapixels: float = MAX_MEGAPIXELS, max_megabytes: float = MAX_MEGABYTES
) -> Photograph:
    """Decodes `path`: turned as EXIF says, colours converted to sRGB, transparency laid on white, metadata dropped.

    Raises Unusable for an empty, truncated, animated, oversized or undecodable file.
    """
    from pillow_heif import register_heif_opener

    size = path.stat().st_size
    if size == 0:
        raise Unusable("the file is empty (0 bytes); copy it again from the camera")
    if size > max_megabytes * 1e6:
        raise Unusable(f"the file has {size / 1e6:.0f} MB, more than the {max_megabytes:g} MB allowed")
    try:
        with warnings.catch_warnings():
            # The limit below is ours and an error; Pillow's own is a warning that would go to the user's terminal.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            register_heif_opener()
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise Unusable(_too_many_pixels(None, max_megapixels)) from None
    except UnidentifiedImageError:
        raise Unusable(_what_it_is_instead(path)) from None
    except (OSError, ValueError, SyntaxError, TypeError, EOFError) as error:
        raise Unusable(f"the file is damaged ({error}); copy it again from the camera") from error

    with image:
        if image.width * image.height > max_megapixels * 1e6:
            raise Unusable(_too_many_pixels(image.size, max_megapixels))
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in SEVERAL_PICTURES:
            raise Unusable(f"it is an animation of {frames} frames; save the one you mean as a jpg or png")
        notes = _misnamed(path, image.format or "")
        try:
            image.load()
            return _normalised(image, notes)
        except Unusable:
            raise
        except (OSError, ValueError, SyntaxError, TypeError, EOFError, RuntimeError, MemoryError) as error:
            raise Unusable(f"the file is truncated or damaged ({error}); copy it again from the camera") from error


def _normalised(image: Image.Image, notes: list[str]) -> Photograph:
    icc = image.info.get("icc_profile")
    if not icc and _exif_says_adobe_rgb(image):
        notes.append("EXIF says Adobe RGB but no profile is embedded: colours taken as sRGB, they may look dull")
    if not icc:
        notes += _coded_colours(image.info.get("nclx_profile") or {})
    orientation = image.getexif().get(ORIENTATION, 1)
    upright = ImageOps.exif_transpose(image)
    if upright.getexif().get(ORIENTATION, 1) != orientation:
        notes.append("turned upright as its EXIF orientation says")
    pixels, alpha = _eight_bit(upright, notes)
    rgb = _to_srgb(pixels, icc, notes)
    if alpha is not None and np.asarray(alpha).min() == 255:
        alpha = None
    if alpha is not None:
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
        notes.append("transparent parts laid on white")
    rgb.info = {}
    return Photograph(rgb, tuple(notes), alpha, orientation)


def _eight_bit(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """The colour channels in one of the modes L, RGB, CMYK, and the alpha channel where there is one."""
    if image.mode.startswith("I"):  # I;16, I;16B and, from older writers, I: 16-bit grey
        values = np.asarray(image).astype(np.float64)
        if values.max(initial=0) > 65535:
            raise Unusable("32-bit greyscale is not a photograph's format; save it as an 8-bit jpg or png")
        notes.append("16-bit greyscale reduced to 8 bit")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)), None
    if image.mode == "F":
        raise Unusable("floating-point pixels are not a photograph's format; save it as an 8-bit jpg or png")
    if image.mode == "CMYK":
        return image, None
    if image.mode in ("1", "L"):
        notes.append("black and white: the subject's colours cannot be learnt from it")
        return image.convert("L"), None
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, None
    rgba = image.convert("RGBA")  # P, PA, LA, La, RGBa, RGBX, RGB with a transparent colour
    return rgba.convert("RGB"), rgba.getchannel("A")


def _coded_colours(nclx: Mapping[str, Any]) -> list[str]:
    """What to know of a HEIC whose colours are told by code points (ITU-T H.273) and not by a profile."""
    if transfer := _HDR_TRANSFERS.get(nclx.get("transfer_characteristics", 0)):
        raise Unusable(f"its colours are HDR ({transfer}); export it as sRGB or Display P3")
    if nclx.get("color_primaries", 2) not in _SRGB_PRIMARIES:
        return ["wide colours without a profile: taken as sRGB, they may look dull"]
    return []


def _to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    """Relative colorimetric with black point compensation: what browsers and photo editors show for a photograph."""
    if not icc:
        if image.mode == "CMYK":
            notes.append("CMYK without a colour profile: its colours are a guess; export it as sRGB")
        return image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(profile).strip() or "an unnamed profile"
        if re.search(r"\b(PQ|HLG|2100)\b", name):
            raise Unusable(f"its colours are HDR ({name}); export it as sRGB or Display P3")
        if _COLOUR_MODES.get(profile.profile.xcolor_space.strip()) != image.mode:
            notes.append(f"its colour profile ({name}) does not fit its pixels and was ignored")
            return image.convert("RGB")
        if name.startswith("sRGB"):
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image,
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError) as error:
        notes.append(f"its colour profile could not be read ({error}) and was ignored")
        return image.convert("RGB")
    assert converted is not None  # only inPlace conversion returns nothing
    notes.append(f"{name} converted to sRGB")
    return converted


def reduced(image: Image.Image, short_side: int) -> Image.Image:
    """`image` with a short side of at most `short_side` pixels, proportions kept; never enlarged."""
    factor = short_side / min(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def write_png(image: Image.Image, path: Path) -> str:
    """Writes `image` as a PNG with no ancillary chunks and returns the file's sha256. Same pixels, same bytes."""
    bare = image.copy()
    bare.info = {}
    buffer = io.BytesIO()
    bare.save(buffer, "PNG", compress_level=6, icc_profile=None)
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def safe_stem(name: str) -> str:
    """A file stem of plain ASCII that every file system and trainer takes, made from whatever the user called the file.

    >>> safe_stem("Stühle am Fenster (2).jpg"), safe_stem("<b>..jpg"), safe_stem("椅子.png")
    ('Stuhle-am-Fenster-2', 'b', 'photo')
    """
    stem = Path(name).stem
    ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", ascii_only).strip("-")[:60] or "photo"


def _too_many_pixels(size: tuple[int, int] | None, limit: float) -> str:
    found = f"{size[0]} x {size[1]} pixels" if size else "an enormous number of pixels"
    return f"the image claims {found}, more than the {limit:g} megapixels allowed (max_megapixels)"


def _misnamed(path: Path, found: str) -> list[str]:
    named = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".heic": "HEIF", ".heif": "HEIF"}
    named[".avif"] = "AVIF"
    actual = "JPEG" if found == "MPO" else found
    wrong = named.get(path.suffix.lower(), actual) != actual
    return [f"is a {actual} file in spite of its name; read as such"] if wrong else []


def _exif_says_adobe_rgb(image: Image.Image) -> bool:
    interop = image.getexif().get_ifd(_INTEROP_IFD)
    return interop.get(1) == _ADOBE_RGB


def _what_it_is_instead(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        kind = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}.get(head[8:12])
        if kind:
            return f"it is {kind} and damaged, or of a kind unknown here; copy it again, or export it as jpg"
        return f"it is a film or a picture of an unknown kind; {READ}"
    known = {
        b"GIF8": "a GIF",
        b"BM": "a BMP",
        b"II*\0": "a TIFF or camera raw file",
        b"MM\0*": "a TIFF or camera raw file",
        b"%PDF": "a PDF",
        b"PK\3\4": "a zip archive",
        b"\x1f\x8b": "a gzip archive",
        b"8BPS": "a Photoshop file",
    }
    for magic, kind in known.items():
        if head.startswith(magic):
            return f"it is {kind}; {READ}: convert it to one of these"
    if head.lstrip()[:1] == b"<":
        return "it is not an image but an HTML, SVG or XML text; perhaps a web page was saved instead of the picture"
    try:
        head[:60].decode("utf-8")
    except UnicodeDecodeError:
        return f"it is not an image in a format known here, or its beginning is damaged; {READ}"
    return "it is not an image but a text file"

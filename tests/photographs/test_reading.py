"""A file from somebody's camera becomes an upright sRGB picture without metadata, or is refused with a reason."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps

from personalize.photographs.reading import Unusable, read_photograph, reduced, safe_stem, write_png


def scene(width: int = 120, height: int = 80) -> Image.Image:
    """A picture with no symmetry, so that every turn and flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, np.where(x + y < 40, 255, 30)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def exif(**tags: object) -> Image.Exif:
    found = Image.Exif()
    for tag, value in tags.items():
        found[{"orientation": 0x0112, "make": 0x010F, "artist": 0x013B}[tag]] = value
    return found


def png(header: bytes, rows: bytes) -> bytes:
    """A PNG file of one IDAT chunk."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_with_header(path: Path, width: int, height: int) -> Path:
    """A valid PNG that claims to be `width` x `height` and holds next to nothing: a decompression bomb."""
    path.write_bytes(png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0" * 99))
    return path


def difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    turns = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    as_held = scene()
    for turn in turns[orientation]:
        as_held = as_held.transpose(turn)
    as_held.save(tmp_path / "photo.png", exif=exif(orientation=orientation))
    photograph = read_photograph(tmp_path / "photo.png")
    assert photograph.image.size == (120, 80)
    assert difference(photograph.image, scene()) == 0
    assert any("upright" in note for note in photograph.notes) == (orientation != 1)


def test_no_metadata_reaches_the_output(tmp_path: Path) -> None:
    tags = exif(make="Phone", artist="A. Person")
    tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)})
    scene().save(tmp_path / "in.jpg", exif=tags, comment=b"secret", dpi=(300, 300), quality=95)
    assert Image.open(tmp_path / "in.jpg").getexif().get_ifd(0x8825), "the test photograph must carry a position"

    write_png(read_photograph(tmp_path / "in.jpg").image, tmp_path / "out.png")
    out = Image.open(tmp_path / "out.png")
    assert out.info == {}
    assert dict(out.getexif()) == {}
    chunks = {(tmp_path / "out.png").read_bytes().find(kind) for kind in (b"eXIf", b"tEXt", b"iTXt", b"iCCP", b"pHYs")}
    assert chunks == {-1}


def test_the_file_that_is_read_is_not_changed(tmp_path: Path) -> None:
    scene().save(tmp_path / "in.jpg", exif=exif(orientation=6))
    before = (tmp_path / "in.jpg").read_bytes(), (tmp_path / "in.jpg").stat().st_mtime_ns
    read_photograph(tmp_path / "in.jpg")
    assert ((tmp_path / "in.jpg").read_bytes(), (tmp_path / "in.jpg").stat().st_mtime_ns) == before


def test_the_same_picture_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    tagged = scene()
    tagged.info["comment"] = "written at noon"
    assert write_png(scene(), tmp_path / "a.png") == write_png(tagged, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def linear_rgb_profile(primaries_xyz: np.ndarray) -> bytes:
    """A minimal ICC v2 matrix profile with gamma 1 and these D50 colorants (rows: red, green, blue)."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(float(value) * 65536))

    def xyz(row: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(fixed(v) for v in row)

    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    name = b"Wide linear\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * (4 + 4 + 2 + 1 + 67)
    white = np.array([0.9642, 1.0, 0.8249])
    tags = [(b"desc", description), (b"wtpt", xyz(white)), (b"cprt", b"text\0\0\0\0none\0")]
    tags += [(kind, xyz(row)) for kind, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries_xyz, strict=True)]
    tags += [(kind, curve) for kind in (b"rTRC", b"gTRC", b"bTRC")]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for kind, data in tags:
        data += b"\0" * (-len(data) % 4)
        table += kind + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + b"\0" * 12
    header += b"acsp" + b"\0" * 28 + b"".join(fixed(v) for v in white)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


SRGB_D50 = np.array([[0.4360, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])


def test_colours_are_converted_and_not_relabelled(tmp_path: Path) -> None:
    """sRGB's own primaries with a linear curve: 128/255 linear is 188 in sRGB (IEC 61966-2-1), whatever the channel."""
    flat = Image.new("RGB", (32, 32), (128, 128, 128))
    flat.save(tmp_path / "linear.png", icc_profile=linear_rgb_profile(SRGB_D50))
    photograph = read_photograph(tmp_path / "linear.png")
    assert photograph.image.getpixel((5, 5)) == pytest.approx((188, 188, 188), abs=1)
    assert photograph.notes == ("Wide linear converted to sRGB",)
    flat.save(tmp_path / "untagged.png")
    assert read_photograph(tmp_path / "untagged.png").image.getpixel((5, 5)) == (128, 128, 128)


def test_srgb_photographs_keep_their_very_pixels(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    scene().save(tmp_path / "srgb.png", icc_profile=profile)
    photograph = read_photograph(tmp_path / "srgb.png")
    assert difference(photograph.image, scene()) == 0
    assert photograph.notes == ()


def test_a_broken_or_foreign_profile_is_ignored_and_said(tmp_path: Path) -> None:
    scene().save(tmp_path / "broken.png", icc_profile=b"not a profile at all")
    photograph = read_photograph(tmp_path / "broken.png")
    assert difference(photograph.image, scene()) == 0
    assert "profile could not be read" in photograph.notes[0]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    scene().save(tmp_path / "lab.png", icc_profile=lab)
    assert "does not fit" in read_photograph(tmp_path / "lab.png").notes[0]


def test_cmyk_is_converted_and_said(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    photograph = read_photograph(tmp_path / "print.jpg")
    red, green, blue = photograph.image.getpixel((5, 5))
    assert red > 200
    assert max(green, blue) < 60
    assert "CMYK without a colour profile" in photograph.notes[0]


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :].repeat(16, axis=0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    photograph = read_photograph(tmp_path / "deep.png")
    assert photograph.image.mode == "RGB"
    assert np.array_equal(np.asarray(photograph.image)[0, :, 0], np.arange(256))
    assert "16-bit" in photograph.notes[0]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    cutout = scene().convert("RGBA")
    cutout.putalpha(Image.new("L", cutout.size, 0))
    cutout.paste((10, 20, 30, 255), (0, 0, 60, 80))
    cutout.save(tmp_path / "cutout.png")
    photograph = read_photograph(tmp_path / "cutout.png")
    assert photograph.image.getpixel((100, 40)) == (255, 255, 255)
    assert photograph.image.getpixel((10, 10)) == (10, 20, 30)
    assert "transparent parts laid on white" in photograph.notes


def test_an_opaque_alpha_channel_is_no_transparency(tmp_path: Path) -> None:
    scene().convert("RGBA").save(tmp_path / "opaque.png")
    photograph = read_photograph(tmp_path / "opaque.png")
    assert difference(photograph.image, scene()) == 0
    assert photograph.notes == ()


def test_palette_and_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([255, 0, 0, 0, 128, 255] + [0] * 762)
    palette.paste(0, (0, 0, 16, 32))
    palette.save(tmp_path / "p.png")
    assert read_photograph(tmp_path / "p.png").image.getpixel((30, 5)) == (0, 128, 255)
    palette.save(tmp_path / "pt.png", transparency=0)
    assert read_photograph(tmp_path / "pt.png").image.getpixel((3, 5)) == (255, 255, 255)


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    ImageOps.grayscale(scene()).save(tmp_path / "grey.jpg")
    photograph = read_photograph(tmp_path / "grey.jpg")
    assert photograph.image.mode == "RGB"
    assert "black and white" in photograph.notes[0]


def test_an_animation_is_refused_because_nobody_said_which_frame(tmp_path: Path) -> None:
    frames = [scene(), ImageOps.mirror(scene())]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:], duration=100)
    for name in ("moving.webp", "moving.png"):
        with pytest.raises(Unusable, match="animation of 2 frames"):
            read_photograph(tmp_path / name)


def test_a_phones_second_picture_in_the_jpeg_is_no_animation(tmp_path: Path) -> None:
    scene().save(
        tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[ImageOps.mirror(scene())], quality=95
    )
    photograph = read_photograph(tmp_path / "phone.jpg")
    assert difference(photograph.image.resize((12, 8)), scene().resize((12, 8))) < 12


def test_a_photograph_beside_other_pictures_of_its_heic_is_the_one_marked_as_primary(tmp_path: Path) -> None:
    several = pillow_heif.from_pillow(ImageOps.mirror(scene(256, 128)))
    several.add_from_pillow(scene(256, 128))
    several.save(tmp_path / "phone.heic", quality=95, primary_index=1)
    assert alike(read_photograph(tmp_path / "phone.heic").image, scene(256, 128))


@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_what_phones_write_is_read_upright_and_in_srgb(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"phone.{kind}"
    p3 = linear_rgb_profile(SRGB_D50)
    turned = scene(256, 128).transpose(Image.Transpose.ROTATE_90)
    pillow_heif.register_heif_opener()
    turned.save(file, quality=95, exif=exif(orientation=6, make="Phone").tobytes(), icc_profile=p3)
    photograph = read_photograph(file)
    assert photograph.image.size == (256, 128)
    assert "Wide linear converted to sRGB" in photograph.notes
    assert photograph.image.info == {}
    straight = read_photograph(write_as(scene(256, 128), tmp_path / "straight.png", p3)).image
    assert alike(photograph.image, straight)


def write_as(image: Image.Image, path: Path, profile: bytes) -> Path:
    image.save(path, icc_profile=profile)
    return path


def alike(one: Image.Image, other: Image.Image) -> bool:
    """Up to what lossy compression and subsampled colour do."""
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean()) < 3


@pytest.mark.parametrize(("transfer", "primaries", "said"), [(16, 9, "HDR (PQ)"), (18, 9, "HDR (HLG)")])
def test_hdr_is_refused(tmp_path: Path, transfer: int, primaries: int, said: str) -> None:
    pillow_heif.register_heif_opener()
    nclx = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 9,
            "full_range_flag": 1}  # fmt: skip
    scene().save(tmp_path / "hdr.heic", **nclx)
    with pytest.raises(Unusable, match=re.escape(said)):
        read_photograph(tmp_path / "hdr.heic")


def test_wide_colours_that_only_code_points_tell_of_are_said(tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()
    scene().save(tmp_path / "p3.heic", color_primaries=12, transfer_characteristics=13)
    assert "wide colours without a profile" in read_photograph(tmp_path / "p3.heic").notes[0]
    scene().save(tmp_path / "srgb.heic")
    assert read_photograph(tmp_path / "srgb.heic").notes == ()


def test_ten_and_sixteen_bits_of_colour_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    deep = np.stack([ramp, ramp[::-1], ramp // 2], axis=-1)[None].repeat(16, axis=0)
    path = tmp_path / "deep.png"
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    path.write_bytes(png(struct.pack(">IIBBBBB", 256, 16, 16, 2, 0, 0, 0), rows))
    want = np.round(deep / 257)
    assert np.abs(np.asarray(read_photograph(path).image) - want).max() <= 1
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    pillow_heif.encode("RGB;16", (256, 16), deep.tobytes(), tmp_path / "deep.heic", quality=-1, chroma=444)
    assert np.abs(np.asarray(read_photograph(tmp_path / "deep.heic").image) - want).mean() < 3


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "heic", "avif"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    path = tmp_path / f"cut.{kind}"
    pillow_heif.register_heif_opener()
    noise.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unusable, match="damaged"):
        read_photograph(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(Unusable, match="0 bytes"):
        read_photograph(tmp_path / "empty.jpg")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is a shopping list\n", "text file"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC and damaged"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif", "AVIF and damaged"),
        (b"\x00\x00\x00\x18ftypqt  \x00\x00\x00\x00qt  ", "film.*heic and avif are read"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "GIF.*convert"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"PK\x03\x04\x14\x00", "zip"),
        (b"II*\x00\x08\x00\x00\x00", "TIFF or camera raw"),
        (b"\xff\xd8\xff\xe0garbage", "damaged|not an image"),
    ],
)
def test_what_is_no_photograph_is_named_for_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(Unusable, match=reason):
        read_photograph(tmp_path / "photo.jpg")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [11_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    with pytest.raises(Unusable, match="megapixels"):
        read_photograph(png_with_header(tmp_path / "bomb.png", side, side))


def test_limits_can_be_set(tmp_path: Path) -> None:
    scene().save(tmp_path / "photo.png")
    with pytest.raises(Unusable, match="120 x 80 pixels"):
        read_photograph(tmp_path / "photo.png", max_megapixels=0.009)
    with pytest.raises(Unusable, match="MB"):
        read_photograph(tmp_path / "photo.png", max_megabytes=1e-6)


def test_a_wrong_suffix_is_no_reason_to_refuse(tmp_path: Path) -> None:
    scene().save(tmp_path / "photo.jpg", format="PNG")
    photograph = read_photograph(tmp_path / "photo.jpg")
    assert difference(photograph.image, scene()) == 0
    assert "PNG file in spite of its name" in photograph.notes[0]


def test_reducing_keeps_proportions_and_never_enlarges() -> None:
    assert reduced(scene(300, 200), 100).size == (150, 100)
    assert reduced(scene(300, 200), 400).size == (300, 200)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("IMG_6276.jpg", "IMG_6276"),
        ("my chair (2).JPG", "my-chair-2"),
        ("Stühle.jpg", "Stuhle"),
        ("椅子.jpg", "photo"),
        ("..hidden..jpg", "hidden"),
        ("<img src=x onerror=alert(1)>.png", "img-src-x-onerror-alert-1"),
        ("-rf.jpg", "rf"),
        ("a" * 300 + ".jpg", "a" * 60),
    ],
)
def test_output_names_are_plain_ascii(name: str, stem: str) -> None:
    assert safe_stem(name) == stem


@pytest.mark.real_photographs
def test_display_p3_photographs_get_the_right_srgb_values(real_photographs: Path) -> None:
    """Against the arithmetic of the profile: P3-D65 primaries, sRGB curve (SMPTE EG 432-1, IEC 61966-2-1)."""
    p3_to_srgb = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
    path = real_photographs / "chairs" / "chair" / "bcnchr" / "IMG_6276.jpg"
    stored = np.asarray(Image.open(path)).astype(float) / 255
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    wanted = linear @ p3_to_srgb.T
    inside = ((wanted > 0.002) & (wanted < 0.998)).all(axis=-1)
    encoded = np.where(wanted <= 0.0031308, wanted * 12.92, 1.055 * np.abs(wanted) ** (1 / 2.4) - 0.055) * 255

    photograph = read_photograph(path)
    got = np.asarray(photograph.image).astype(float)
    assert "Display P3 converted to sRGB" in photograph.notes
    error = np.abs(got - encoded)[inside]
    assert np.percentile(error, 99) < 3
    assert np.abs(got - stored * 255)[inside].mean() > 1, "the pixels must have changed"


@pytest.mark.real_photographs
def test_real_photographs_lose_all_metadata(real_photographs: Path, tmp_path: Path) -> None:
    path = real_photographs / "chairs" / "chair" / "emslng" / "IMG_6220.jpg"
    assert Image.open(path).info.keys() & {"exif", "icc_profile"}
    write_png(read_photograph(path).image, tmp_path / "out.png")
    assert Image.open(io.BytesIO((tmp_path / "out.png").read_bytes())).info == {}

# ruff: noqa: E501  (a row of the table is a line)
"""Hostile inputs: what each is, by which door it comes in, and what must be said of it.

`make` writes what is needed into the working directory, an empty folder, and returns what the door is given.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hostile import doors

DEEP = "[" * 100_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@dataclass(frozen=True)
class Hostile:
    """says: a pattern of the message; it names the thing or the way out."""

    name: str
    door: Callable[[Any], None]
    make: Callable[[], Any]
    says: str


TABLE: list[Hostile] = []


def add(door: Callable[[Any], None], rows: dict[str, tuple[Any, str]]) -> None:
    for name, (made, says) in rows.items():
        make = made if callable(made) else lambda made=made: made
        TABLE.append(Hostile(f"{door.__name__}: {name}", door, make, says))


# Archives.


def tar(*members: tuple[tarfile.TarInfo, bytes], name: str = "given.tar", mode: str = "w") -> dict[str, Any]:
    with tarfile.open(name, mode) as archive:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"data": name}


def member(name: str = "1.jpg", kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.pax_headers = kind, link, pax
    return made


def raw_tar(kind: bytes, size: int, content: bytes = b"", packed: bool = False) -> dict[str, Any]:
    """One header that announces `size` bytes, and what follows it."""
    made = member("x", kind)
    made.size = size
    data = made.tobuf(tarfile.GNU_FORMAT) + content
    Path("given.tar.gz").write_bytes(gzip.compress(data) if packed else data)
    return {"data": "given.tar.gz"}


def record(text: bytes) -> bytes:
    """A PAX record with its own length, as tarfile reads it."""
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


def pax(*records: bytes) -> dict[str, Any]:
    content = b"".join(records)
    padded = content + b"\0" * (-len(content) % 512)
    after = member("1.jpg").tobuf(tarfile.USTAR_FORMAT) + b"\0" * 1024
    return raw_tar(tarfile.XHDTYPE, len(content), padded + after)


def packed(data: bytes, name: str = "given.tar") -> dict[str, Any]:
    Path(name).write_bytes(data)
    return {"data": name}


def whole_tar() -> bytes:
    tar((member(), bytes(range(256)) * 400))
    return Path("given.tar").read_bytes()


def zipped(*members: tuple[str, bytes], **how: Any) -> dict[str, Any]:
    with zipfile.ZipFile("given.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in how.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return {"data": "given.zip"}


def patched(old: bytes, new: bytes, *members: tuple[str, bytes]) -> dict[str, Any]:
    zipped(*(members or (("1.jpg", b"\0" * 1_000_000),)))
    content = Path("given.zip").read_bytes()
    assert old in content
    return packed(content.replace(old, new), "given.zip")


def overlapping() -> dict[str, Any]:
    """A thousand entries whose bytes are the same ones (as Fifield's bomb, 2019)."""
    zipped(("1.jpg", b"\0" * 3_000_000))
    content = Path("given.zip").read_bytes()
    start = content.index(b"PK\1\2")
    entry = content[start : content.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(entry) * 1000, start, 0)
    return packed(content[:start] + entry * 1000 + end, "given.zip")


def many_members() -> dict[str, Any]:
    return zipped(*((f"{number}.jpg", b"") for number in range(10_001)))


OUT, ABSOLUTE, SPECIAL, BROKEN = r"leads out", r"absolute path", r"link or special file", r"not a whole zip or tar"
add(
    doors.ingest,
    {
        "a PAX header of 3 GB": (lambda: raw_tar(tarfile.XHDTYPE, 3_500_000_000, b"\0" * 9000, True), r"header .* MB"),
        "a global PAX header of 3 GB": (lambda: raw_tar(tarfile.XGLTYPE, 3_500_000_000, packed=True), r"header .* MB"),
        "a long name of 100 MB": (lambda: raw_tar(tarfile.GNUTYPE_LONGNAME, 100_000_000), r"header of a member has 100"),
        "a long link of 100 MB": (lambda: raw_tar(tarfile.GNUTYPE_LONGLINK, 100_000_000), r"header of a member has 100"),
        "a member of a terabyte": (lambda: raw_tar(tarfile.REGTYPE, 10**12), r"more than the 200 MB that a file"),
        "a member of minus one byte": (lambda: raw_tar(tarfile.REGTYPE, -1), r"given\.tar\.gz: no photograph"),
        "a sparse member of a terabyte": (lambda: pax(record(b"GNU.sparse.major=1"), record(b"GNU.sparse.minor=0"),
                                          record(b"GNU.sparse.realsize=1000000000000")), r"given.tar.gz: .*"),
        "a sparse map of words": (lambda: pax(record(b"GNU.sparse.size=9"), record(b"GNU.sparse.map=a,b")), BROKEN),
        "a sparse size of no number": (lambda: pax(record(b"GNU.sparse.size=much")), BROKEN),
        "a PAX size of no number": (lambda: pax(record(b"size=much")), r"given.tar.gz|no photograph|few usable"),
        "a PAX size below zero": (lambda: pax(record(b"size=-512")), r"given.tar.gz"),
        "a PAX record of no length": (lambda: pax(b"99999999999999999999 path=a\n"), BROKEN),
        "a PAX path with a null": (lambda: pax(record(b"path=a\0b.jpg")), r"absolute|null"),
        "a PAX path that leads out": (lambda: pax(record(b"path=../../evil.jpg")), OUT),
        "an absolute path in a tar": (lambda: tar((member("/tmp/evil.jpg"), b"x")), ABSOLUTE),
        "a path out of a tar": (lambda: tar((member("a/../../evil.jpg"), b"x")), OUT),
        "a link in a tar": (lambda: tar((member("1.jpg", tarfile.SYMTYPE, "/etc/passwd"), b"")), SPECIAL),
        "a hard link in a tar": (lambda: tar((member("1.jpg", tarfile.LNKTYPE, "../../canary"), b"")), SPECIAL),
        "a character device in a tar": (lambda: tar((member("1.jpg", tarfile.CHRTYPE), b"")), SPECIAL),
        "a block device in a tar": (lambda: tar((member("1.jpg", tarfile.BLKTYPE), b"")), SPECIAL),
        "a pipe in a tar": (lambda: tar((member("1.jpg", tarfile.FIFOTYPE), b"")), SPECIAL),
        "a folder by the name of a file, tar": (lambda: tar((member("a"), b"x"), (member("a/1.jpg"), b"y")), r"'a/1.jpg'"),
        "a file by the name of a folder, tar": (lambda: tar((member("a/1.jpg"), b"x"), (member("a"), b"y")), r"'a' "),
        "the same name twice in a tar": (lambda: tar((member(), b"x"), (member("./1.jpg"), b"y")), r"in it twice"),
        "a tar that was cut": (lambda: packed(whole_tar()[:60_000]), BROKEN),
        "a tar.gz that was cut": (lambda: packed(gzip.compress(whole_tar())[:500], "given.tar.gz"), BROKEN),
        "a tar.xz that was cut": (lambda: packed(lzma.compress(whole_tar())[:-60], "given.tar.xz"), BROKEN),
        "a tar.bz2 of rubbish": (lambda: packed(b"BZh9" + bytes(range(256)), "given.tar.bz2"), BROKEN),
        "a tar.xz of rubbish": (lambda: packed(b"\xfd7zXZ\0" + bytes(range(256)), "given.tar.xz"), BROKEN),
        "a gigabyte of nothing, gz": (lambda: packed(gzip.compress(b"\0" * 1_000_000) * 300, "given.tgz"), r"no photograph|bytes than"),
        "a bomb in bz2": (lambda: packed(zeros_in_bz2(), "given.tar.bz2"), r"more than 50 times|more bytes than allowed"),
        "rubbish by the name of a tar": (lambda: packed(os.urandom(5000)), BROKEN),
        "an empty file by the name of a zip": (lambda: packed(b"", "given.zip"), r"given.zip"),
        "an absolute path in a zip": (lambda: zipped(("/tmp/evil.jpg", b"x")), ABSOLUTE),
        "a path out of a zip": (lambda: zipped(("a/../../evil.jpg", b"x")), OUT),
        "a Windows path out of a zip": (lambda: zipped(("..\\evil.jpg", b"x")), OUT),
        "a drive in a zip": (lambda: zipped(("C:/evil.jpg", b"x")), ABSOLUTE),
        "a link in a zip": (lambda: zipped(("1.jpg", b"/etc/passwd"), create_system=3, external_attr=0o120777 << 16), SPECIAL),
        "a device in a zip": (lambda: zipped(("1.jpg", b""), create_system=3, external_attr=0o020777 << 16), SPECIAL),
        "an encrypted zip": (lambda: patched(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), r"encrypted"),
        "a zip bomb": (lambda: zipped(*((f"{n}.jpg", b"\0" * 30_000_000) for n in range(8))), r"more than 50 times"),
        "entries of a zip that overlap": (overlapping, r"50 times|twice|MB allowed"),
        "a zip that lies about sizes": (lambda: patched((10**6).to_bytes(4, "little"), (9).to_bytes(4, "little")), BROKEN),
        "a zip of an unknown method": (lambda: patched(b"PK\1\2\x14\3\x14\0\0\0\x08\0", b"PK\1\2\x14\3\x14\0\0\0\x61\0"), BROKEN),
        "a zip with wrong sums": (lambda: patched(struct.pack("<L", zlib.crc32(b"\0" * 10**6)), b"oops"), BROKEN),
        "a zip whose list is elsewhere": (lambda: patched(b"PK\1\2", b"PK\7\7"), BROKEN),
        "a zip of 10,001 files": (many_members, r"10001 members, more than the 10000"),
        "a zip with the same name twice": (lambda: zipped(("1.jpg", b"x"), ("./1.jpg", b"y")), r"in it twice"),
        "a folder by the name of a file, zip": (lambda: zipped(("a", b"x"), ("a/1.jpg", b"y")), r"'a/1.jpg'"),
        "a name of 60,000 letters": (lambda: zipped(("x" * 60_000 + ".jpg", b"x")), r"longer name than a disk takes"),
        "a thousand folders deep": (lambda: zipped(("d/" * 1000 + "1.jpg", b"x")), r"longer name than a disk takes"),
        "a zip in a zip": (lambda: zipped(("inner.zip", b"PK\3\4")), r"no photograph"),
    },
)  # fmt: skip


def zeros_in_bz2() -> bytes:
    """Two members of 150 million zeros each, in streams of 10 million."""
    made, zeros = b"", bz2.compress(b"\0" * 9_999_872)
    for name in ("1.jpg", "2.jpg"):
        one = member(name)
        one.size = 9_999_872 * 15
        made += bz2.compress(one.tobuf()) + zeros * 15
    return made


# Folders.


def folder(*files: tuple[str | bytes, Any], **config: Any) -> dict[str, Any]:
    """A folder `given`; what is callable makes the file itself."""
    os.mkdir("given")
    for name, content in files:
        path = os.path.join(b"given", name if isinstance(name, bytes) else os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if callable(content):
            content(os.fsdecode(path))
        else:
            Path(os.fsdecode(path)).write_bytes(content)
    return config


def link(target: str) -> Callable[[str], None]:
    return lambda path: os.symlink(target, path)


def bound(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def shown(*files: tuple[str, Any], **config: Any) -> Callable[[], dict[str, Any]]:
    """Photographs of one subject."""
    return lambda: folder(*((f"chair/zwvchr/{name}", content) for name, content in files), **config)


NONE, FEW = r"no photograph", r"too few usable photographs"
add(
    doors.ingest,
    {
        "a pipe for a photograph": (shown(("1.jpg", os.mkfifo)), NONE),
        "a socket for a photograph": (shown(("1.jpg", bound)), NONE),
        "an endless device for a photograph": (shown(("1.jpg", link("/dev/zero"))), NONE),
        "a link to nothing": (shown(("1.jpg", link("nowhere"))), NONE),
        "a link to itself": (shown(("1.jpg", link("1.jpg"))), NONE),
        "folders that lead in a circle": (shown(("again", link("../.."))), NONE),
        "a link to the whole disk": (shown(("all", link("/"))), NONE),
        "a link to somebody's passwords": (shown(("1.jpg", link("/etc/passwd"))), FEW),
        "an empty folder": (lambda: folder(), NONE),
        "names that are not UTF-8": (lambda: folder((b"chair/zwvchr/\xff\xfe.jpg", b"x")), r"its name is not UTF-8|no photograph"),
        "a folder that is not UTF-8": (lambda: folder((b"chair/\xff\xfe/1.jpg", b"x")), NONE),
        "a photograph by the name of a page": (lambda: folder(("<script>alert(1)</script>/x/1.jpg", b"x")), r"too deep|lie in <class|script"),
        "a token of markup": (lambda: folder(("chair/<b>x&quot;/1.jpg", b"x")), r"cannot be a token"),
        "a token with a line's end": (lambda: folder(("chair/a\nb/1.jpg", b"x")), r"cannot be a token"),
        "a class noun of 200 letters": (lambda: folder((f"{'c' * 200}/zwvchr/1.jpg", b"x")), r"cannot be a class noun"),
        "a class noun that is a template": (lambda: folder(("{{ 7*7 }}/zwvchr/1.jpg", b"x")), r"cannot be a class noun"),
        "a kohya folder without a word": (lambda: folder(("10_/1.jpg", b"x")), r"do not lie in <class noun>/<token>"),
        "a kohya folder of one word": (lambda: folder(("10_zwvchr/1.jpg", b"x")), r"do not lie in <class noun>/<token>"),
        "a kohya folder of marks": (lambda: folder(("10_ZW$ chair!/1.jpg", b"x")), r"cannot be a"),
        "a kohya folder of a billion repeats": (lambda: folder(("9999999999999_a chair/1.jpg", b"x")), r"cannot be a token"),
        "a flat folder": (lambda: folder(("1.jpg", b"x")), r"flat folder: give token and class_noun"),
        "a token without a class noun": (lambda: folder(("1.jpg", b"x"), token="zwvchr"), r"without class_noun"),
        "a token that is a path": (lambda: folder(("1.jpg", b"x"), token="../../evil", class_noun="chair"), r"cannot be a token"),
        "data with a null": ({"data": "a\0b"}, r"cannot be a path|does not exist"),
        "data of 100,000 letters": ({"data": "x" * 100_000}, r"cannot be a path"),
        "the home of nobody": ({"data": "~nobody-at-all/x"}, r"cannot be a path|does not exist"),
        "data that is a pipe": (lambda: os.mkfifo("given") or {}, r"given is a pipe or a device"),
        "data that is a device": ({"data": "/dev/zero"}, r"/dev/zero is a pipe or a device"),
        "data that is one photograph": (lambda: packed(b"x", "1.jpg"), r"single file"),
        "data that is a word": ({"data": "nowhere/at/all"}, r"does not exist"),
        "an address of another kind": ({"data": "file:///etc/passwd"}, r"https|address"),
        "an address of nothing": ({"data": "https://"}, r"address|https"),
    },
)  # fmt: skip


# Photographs.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def picture(kind: str, **how: Any) -> bytes:
    import numpy as np
    from PIL import Image

    if kind in ("HEIF", "AVIF"):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    made, buffer = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(made).save(buffer, kind, **how)
    return buffer.getvalue()


def jpeg(width: int, height: int) -> bytes:
    """A JPEG that claims a size."""
    data = picture("JPEG")
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def heif(width: int, height: int) -> bytes:
    """An HEIC that claims a size, in its property `ispe`."""
    data = picture("HEIF")
    start = data.index(b"ispe") + 8
    return data[:start] + struct.pack(">II", width, height) + data[start + 8 :]


def animated() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in range(200)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def photographed(make: Callable[[], bytes]) -> Callable[[], dict[str, Any]]:
    return lambda: folder(*((f"chair/zwvchr/{n}.jpg", make()) for n in range(3)))


MANY, DAMAGED = r"too few.*megapixels", r"too few.*(damaged|truncated|beginning)"
add(
    doors.ingest,
    {
        "a PNG of ten gigapixels": (photographed(lambda: png(100_000, 100_000)), MANY),
        "a PNG of 2^62 pixels": (photographed(lambda: png(2**31 - 1, 2**31 - 1)), r"too few.*(megapixels|damaged)"),
        "a PNG of nothing": (photographed(lambda: png(0, 0)), DAMAGED),
        "a PNG without its pixels": (photographed(lambda: png(5000, 5000)), DAMAGED),
        "a PNG whose text fills the memory": (photographed(lambda: png(64, 64, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 10**8)))), DAMAGED),
        "a PNG whose colours fill the memory": (photographed(lambda: png(64, 64, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 10**8)))), DAMAGED),
        "a PNG whose pixels fill the memory": (photographed(lambda: png(64, 64, pixels=b"\0" * 10**8)), FEW),
        "a PNG with a chunk beyond its end": (photographed(lambda: png(64, 64)[:40] + b"\xff" * 20), DAMAGED),
        "a JPEG of four gigapixels": (photographed(lambda: jpeg(65_500, 65_500)), MANY),
        "a JPEG that was cut": (photographed(lambda: picture("JPEG")[:900]), DAMAGED),
        "an HEIC of ten gigapixels": (photographed(lambda: heif(100_000, 100_000)), r"too few.*(megapixels|damaged)"),
        "an HEIC that was cut": (photographed(lambda: picture("HEIF")[:400]), DAMAGED),
        "an HEIC of its first bytes": (photographed(lambda: b"\0\0\0\x18ftypheic" + b"\0" * 40), DAMAGED),
        "an AVIF of rubbish": (photographed(lambda: b"\0\0\0\x18ftypavif" + bytes(range(256))), DAMAGED),
        "a WebP of rubbish": (photographed(lambda: b"RIFF\xff\xff\xff\x7fWEBPVP8X" + bytes(range(200))), r"too few.*(megapixels|damaged)"),
        "a WebP of 200 pictures": (photographed(animated), r"too few.*animation of [0-9]+ frames"),
        "a TIFF of ten gigapixels": (photographed(lambda: b"II*\0\x08\0\0\0" + bytes(200)), r"too few.*TIFF"),
        "a GIF": (photographed(lambda: b"GIF89a" + b"\xff" * 50), r"too few.*it is a GIF"),
        "a web page": (photographed(lambda: b"<html><script>alert(1)</script>"), r"too few.*HTML"),
        "a program": (photographed(lambda: b"\x7fELF" + os.urandom(500)), FEW),
        "a pickle": (photographed(lambda: pickle.dumps({"a": 1})), FEW),
        "nothing": (photographed(bytes), r"too few.*empty"),
    },
)  # fmt: skip


# Captions.


def captioned(name: str, content: Any) -> Callable[[], dict[str, Any]]:
    return lambda: folder(("chair/zwvchr/1.jpg", b"x"), (name, content))


JSONL, CSV = "metadata.jsonl", "metadata.csv"
add(
    doors.ingest,
    {
        "a caption of 10 MB": (captioned("chair/zwvchr/1.txt", b"a chair " * 1_300_000), r"1\.txt.*(long|characters)"),
        "a caption that is not UTF-8": (captioned("chair/zwvchr/1.txt", b"\xff\xfe\0a"), r"1\.txt: not UTF-8"),
        "a caption that is a pipe": (captioned("chair/zwvchr/1.txt", os.mkfifo), FEW),
        "a caption that is a device": (captioned("chair/zwvchr/1.txt", link("/dev/zero")), FEW),
        "a table nested without end": (captioned(JSONL, DEEP.encode()), r"metadata\.jsonl, line 1"),
        "a table of one list": (captioned(JSONL, b"[1, 2]"), r"metadata\.jsonl, line 1"),
        "a table with a number of 10,000 digits": (captioned(JSONL, b'{"file_name": ' + b"9" * 10_000 + b"}"), r"metadata\.jsonl, line 1"),
        "a table of numbers": (captioned(JSONL, b'{"file_name": 1, "text": 2}'), r"metadata\.jsonl, line 1"),
        "a table of half a line": (captioned(JSONL, b'{"file_name": "1.jpg", "te'), r"metadata\.jsonl, line 1"),
        "a table for what is not there": (captioned(JSONL, b'{"file_name": "../../etc/passwd", "text": "a"}'), FEW),
        "a CSV without its columns": (captioned(CSV, b"a,b\n1,2\n"), r"metadata\.csv: .*file_name and text"),
        "a CSV with a null": (captioned(CSV, b"file_name,text\n1.jpg,a\0b\n"), r"metadata\.csv|too few"),
        "a CSV with a quote that never ends": (captioned(CSV, b'file_name,text\n1.jpg,"' + b"a\n" * 200_000), r"metadata\.csv, line"),
        "a CSV with a field of a megabyte": (captioned(CSV, b"file_name,text\n1.jpg," + b"a" * 1_000_000), r"metadata\.csv, line"),
        "a CSV of 100,000 columns": (captioned(CSV, b"," * 100_000), r"metadata\.csv: .*file_name and text"),
        "an empty CSV": (captioned(CSV, b""), r"metadata\.csv: .*file_name and text"),
    },
)  # fmt: skip


def file(content: bytes | str, name: str = "given") -> Callable[[], Path]:
    def make() -> Path:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return Path(name)

    return make


def json_lines(**row: Any) -> Callable[[], Path]:
    return file(json.dumps(row), "edited.jsonl")


add(
    doors.caption,
    {
        "a stranger's photograph": (json_lines(file_name="../../x.png", text="a"), r"no photograph of this run"),
        "an empty text": (json_lines(file_name="chair/zwvchr/1.png", text=" "), r"empty text"),
        "nested without end": (file(DEEP, "edited.jsonl"), r"edited\.jsonl, line 1"),
        "not UTF-8": (file(b"\xff\xfe{", "edited.jsonl"), r"not UTF-8"),
        "a text of 10 MB": (
            json_lines(file_name="chair/zwvchr/1.png", text="a chair " * 1_300_000),
            r"long|characters",
        ),
        "a folder": (lambda: os.mkdir("given") or Path("given"), r"is not a file"),
        "a device": (Path("/dev/zero"), r"is not a file"),
    },
)
add(doors.own_caption, {"longer than is heard": ("a zwvchr chair " * 40, r"not heard would be|Not heard would be")})
add(
    doors.prompts,
    {
        "no file": ("@nowhere.txt", r"cannot be read"),
        "a folder": ("@/", r"cannot be read"),
        "a device": ("@/dev/zero", r"/dev/zero"),
        "a pipe": (lambda: os.mkfifo("given") or "@given", r"given"),
        "not UTF-8": (lambda: file(b"\xff\xfe")() and "@given", r"cannot be read"),
        "nothing in it": (lambda: file(b"\n \n")() and "@given", r"nothing to draw"),
        "a null in its name": ("@a\0b", r"cannot be read|cannot be a path"),
        "a name of 10,000 letters": ("@" + "x" * 10_000, r"cannot be read|cannot be a path"),
    },
)


# Recipe, profile and parameters.


def yaml(content: Any, name: str = "recipe.yaml") -> dict[str, Any]:
    return {"files": {name: content}}


def words(*parameters: str) -> dict[str, Any]:
    return {"words": [word for parameter in parameters for word in ("--set", parameter)]}


def recipe_with(line: str) -> dict[str, Any]:
    text = (doors.WORDS / "recipe.yaml").read_text()
    return yaml(f"{text}\n{line}\n" if ":" in line.split("\n")[0] else text.replace("a title", line))


def block(key: str, value: str) -> dict[str, Any]:
    """The words project's recipe with another value for a key at its top."""
    lines = (doors.WORDS / "recipe.yaml").read_text().splitlines(keepends=True)
    kept, skipping = [], False
    for each in lines:
        if each[0] not in " #\n":
            skipping = each.startswith(f"{key}:")
        if not skipping:
            kept.append(each)
    return yaml("".join(kept) + f"{key}: {value}\n")


def local(text: str) -> dict[str, Any]:
    return yaml((doors.WORDS / "profiles/local.yaml").read_text() + text + "\n", "profiles/local.yaml")


AT = r"recipe\.yaml"
add(
    doors.recipe,
    {
        "aliases that stand for a billion values": (lambda: yaml(BOMB + "steps: *i"), r"recipe\.yaml.*aliases"),
        "aliases in a profile": (lambda: yaml(BOMB, "profiles/local.yaml"), r"local\.yaml.*aliases"),
        "nested without end": (lambda: yaml("steps: " + DEEP), AT),
        "nested maps without end": (lambda: yaml("steps: " + "{a: " * 5000), AT),
        "a list that holds itself": (lambda: yaml("steps: &a [*a]"), AT),
        "merges without end": (lambda: yaml("a: &a {<<: *a}\nsteps: *a"), AT),
        "an object of Python": (lambda: yaml('steps: !!python/object/apply:os.system ["touch canary"]'), AT),
        "an unknown tag": (lambda: yaml("steps: !frobnicate 7"), AT),
        "a null": (lambda: yaml("steps: a\0b"), AT),
        "not UTF-8": (lambda: yaml(b"steps: \xff\xfe"), r"recipe\.yaml cannot be read"),
        "UTF-16": (lambda: yaml("steps: {}".encode("utf-16")), r"recipe\.yaml"),
        "the same key twice": (lambda: recipe_with("until: read"), r"given twice"),
        "a tab": (lambda: yaml("steps:\n\tread:"), r"recipe\.yaml:2"),
        "two documents": (lambda: yaml("a: 1\n---\nb: 2"), AT),
        "nothing": (lambda: yaml(""), AT),
        "one word": (lambda: yaml("steps"), AT),
        "a date that is none": (lambda: recipe_with("description: 2026-99-99"), AT),
        "a number of 10,000 digits": (lambda: recipe_with("description: " + "9" * 10_000), r"recipe\.yaml|10,000"),
        "a recipe that is a folder": (lambda: yaml(lambda path: path.mkdir()), r"recipe\.yaml cannot be read"),
        "a recipe that is a pipe": (lambda: yaml(lambda path: os.mkfifo(path)), r"recipe\.yaml"),
        "a recipe that is a device": (lambda: yaml(lambda path: path.symlink_to("/dev/zero")), r"recipe\.yaml"),
        "steps that are a list": (lambda: block("steps", "[read, count]"), r"steps"),
        "a step that is a word": (lambda: block("steps", "{read: yes please}"), r"must hold keys and values"),
        "a step that is a path": (lambda: block("steps", "{../../evil: {}}"), r"evil"),
        "until that is a list": (lambda: block("until", "[report]"), r"recipe\.yaml.*until|unknown step"),
        "until that is a map": (lambda: block("card", "{a: b}"), r"recipe\.yaml"),
        "a headline that is a number": (lambda: block("headline", "7"), r"recipe\.yaml.*headline"),
        "parameters that are a number": (lambda: block("parameters", "7"), r"parameters"),
        "parameters that are lists": (lambda: block("parameters", "{top: [1, 2]}"), r"recipe\.yaml|parameter"),
        "next that is a list": (lambda: block("next", "[1, 2]"), r"recipe\.yaml.*next"),
        "trust that is a number": (lambda: block("trust", "7"), r"recipe\.yaml.*trust"),
        "trust of nobody": (lambda: block("trust", "{makers: [me]}"), r"recipe\.yaml.*trust\.makers"),
        "a template without an end": (lambda: recipe_with("{{ LANGUAGE"), AT),
        "a template that counts for ever": (lambda: recipe_with("{{ 9 ** 9 ** 9 ** 9 }}"), r"recipe\.yaml"),
        "a template of a gigabyte": (lambda: recipe_with("{{ 'a' * 10 ** 10 }}"), r"recipe\.yaml"),
        "a template that fills with zeros": (lambda: recipe_with("{{ '%0999999999d' % 7 }}"), r"recipe\.yaml"),
        "a template that goes round": (lambda: recipe_with("{% for i in range(10 ** 9) %}x{% endfor %}"), r"recipe\.yaml"),
        "a template that calls itself": (lambda: recipe_with("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), r"recipe\.yaml"),
        "a template that looks behind things": (lambda: recipe_with("{{ ''.__class__.__mro__ }}"), r"recipe\.yaml"),
        "a template that reads files": (lambda: recipe_with("{% include '/etc/passwd' %}"), r"recipe\.yaml"),
        "a template of a name that is not": (lambda: recipe_with("{{ LANGUAG }}"), r"did you mean 'LANGUAGE'"),
        "a profile of another place": ({"words": ["--profile", "../../../etc/passwd"]}, r"unknown profile"),
        "a profile with a null": ({"words": ["--profile", "a\0b"]}, r"unknown profile"),
        "a profile of 100,000 letters": ({"words": ["--profile", "x" * 100_000]}, r"unknown profile"),
        "a profile that extends itself": (lambda: local("extends: local"), r"extends itself"),
        "a profile that extends a list": (lambda: local("extends: [a, b]"), r"unknown profile"),
        "a profile that is a list": (lambda: yaml("[1, 2]", "profiles/local.yaml"), r"local\.yaml"),
        "a section that is a word": (lambda: local("experiment: mine"), r"local\.yaml.*experiment"),
        "steps of a profile that are a word": (lambda: local("steps: mine"), r"local\.yaml.*steps"),
        "a step that is not there": (lambda: local("steps: {rotate: {}}"), r"unknown step 'rotate'"),
        "a parameter that nobody knows": (words("tops=3"), r"tops.*did you mean"),
        "a parameter of markup": (words("<script>=3"), r"unknown parameter"),
        "a parameter nested without end": (words("count.top=" + DEEP), r"count.*top"),
        "a parameter nested and closed": (words("count.top=" + "[" * 900 + "]" * 900), r"count.*top"),
        "a parameter that is an object of Python": (words("count.top=!!python/object/apply:os.getcwd []"), r"count.*top"),
        "a parameter that holds itself": (words("count.top=&a [*a]"), r"count.*top"),
        "a parameter that is a template": (words("count.top={{ 7 * 7 }}"), r"count.*top"),
        "a parameter beyond all numbers": (words("count.top=1e999"), r"count.*top"),
        "a parameter that is no number": (words("count.top=.nan"), r"count.*top"),
        "a parameter of 10,000 digits": (words("count.top=" + "9" * 10_000), r"count.*top"),
        "a parameter with a null": (words("count.top=a\0b"), r"count.*top"),
        "a parameter of half a letter": (words("count.top=\ud800"), r"count.*top"),
        "a parameter of 10 MB": (words("count.top=" + "x" * 10_000_000), r"count.*top"),
        "a parameter a hundred dots deep": (words("count" + ".a" * 100 + "=1"), r"count"),
        "a parameter without a name": (words("=3"), r"parameter"),
        "until of markup": ({"words": ["--until", "<script>"]}, r"unknown step"),
    },
)  # fmt: skip


# What lies in stores: weights, statements, scores, subjects, judges.


def tensors(header: bytes, length: int | None = None, after: bytes = b"") -> Callable[[], Path]:
    size = len(header) if length is None else length
    return file(struct.pack("<Q", size) + header + after, "pytorch_lora_weights.safetensors")


def tensor(**more: Any) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **more}}).encode()


UNREADABLE = r"not a readable safetensors"
add(
    doors.adapter,
    {
        "a header of 2^63 bytes": (tensors(b"{}", 2**63), UNREADABLE),
        "a header beyond its end": (tensors(b"{}", 5000), UNREADABLE),
        "a header nested without end": (tensors(b'{"a":' + DEEP.encode()), UNREADABLE),
        "a header that is a list": (tensors(b"[]"), UNREADABLE),
        "a header that is not UTF-8": (tensors(b"\xff\xfe{}"), UNREADABLE),
        "a tensor beyond its end": (tensors(tensor(data_offsets=[0, 10**12], shape=[10**6, 10**6])), UNREADABLE),
        "a tensor that ends before it begins": (tensors(tensor(data_offsets=[8, 0]), after=bytes(8)), UNREADABLE),
        "a tensor of 2^80 numbers": (tensors(tensor(shape=[2**40, 2**40]), after=bytes(8)), UNREADABLE),
        "a tensor of an unknown kind": (tensors(tensor(dtype="F999"), after=bytes(8)), UNREADABLE),
        "a pickle": (file(pickle.dumps({"a": 1}), "pytorch_lora_weights.safetensors"), UNREADABLE),
        "nothing": (file(b"", "pytorch_lora_weights.safetensors"), UNREADABLE),
        "no scale": (tensors(tensor(), after=bytes(8)), r"does not say its alpha"),
    },
)
LIST = r"not a list of subjects"
add(
    doors.subjects,
    {
        "nested without end": (file(DEEP, "subjects.json"), LIST),
        "a number": (file("7", "subjects.json"), LIST),
        "numbers for names": (file('[{"token": 5, "class_noun": 6}]', "subjects.json"), LIST),
        "lists for names": (file('[{"token": ["a"], "class_noun": "b"}]', "subjects.json"), LIST),
        "a number of 10,000 digits": (file("9" * 10_000, "subjects.json"), LIST),
        "not UTF-8": (file(b"\xff\xfe", "subjects.json"), LIST),
        "images that are no number": (
            file('[{"token": "a", "class_noun": "b", "images": "c"}]', "subjects.json"),
            LIST,
        ),
    },
)


def judged(content: bytes | None, *others: str) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        os.mkdir("given")
        if content is not None:
            Path("given/config.json").write_bytes(content)
        for name in others:
            Path("given", name).write_bytes(pickle.dumps({}))
        return {"name": "clip", "model": "given"}

    return make


add(
    doors.judge,
    {
        "without a description": (judged(None), r"judge clip: given has no readable config\.json"),
        "described without end": (judged(DEEP.encode()), r"judge clip: given has no readable config\.json"),
        "described by a list": (judged(b"[]"), r"does not say which architecture"),
        "described in other letters": (judged(b"\xff\xfe"), r"judge clip: given has no readable config\.json"),
        "with pickled weights": (judged(b'{"model_type": "clip"}', "pytorch_model.bin"), r"holds no \.safetensors"),
        "that is nowhere": ({"name": "clip", "model": "no/where/at/all"}, r"clip|no/where"),
    },
)
NO_SCORES = r"what should be scores|its gates do not say|come to|its scores say"
add(
    doors.scores,
    {
        "nested without end": (DEEP.encode(), NO_SCORES),
        "a list": (b"[]", NO_SCORES),
        "a number": (b"7", NO_SCORES),
        "not UTF-8": (b"\xff\xfe", NO_SCORES),
        "gates that are words": (b'{"verdict": "passed", "gates": "all", "pictures": []}', NO_SCORES),
        "a gate of nothing": (b'{"verdict": "passed", "gates": [{}], "pictures": []}', NO_SCORES),
        "a verdict without gates": (b'{"verdict": "passed", "gates": [], "pictures": []}', NO_SCORES),
        "a number of 10,000 digits": (b'{"verdict": ' + b"9" * 10_000 + b"}", NO_SCORES),
    },
)
BAD = r"a statement that cannot be read|a signature that does not fit"
IN_TOTO = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "predicate": {}}
add(
    doors.statement,
    {
        "nested without end": (DEEP, BAD),
        "nested inside": (lambda: doors.envelope(DEEP), BAD),
        "a list": ("[]", BAD),
        "a number": ("7", BAD),
        "no base64": ('{"payload": "***", "payloadType": "x", "signatures": [], "keys": []}', BAD),
        "keys that are a number": ('{"payload": "", "payloadType": "x", "signatures": [], "keys": 7}', BAD),
        "a key of rubbish": ('{"payload": "", "payloadType": "x", "signatures": [], "keys": ["-----BEGIN"]}', BAD),
        "signatures that are words": ('{"payload": "", "payloadType": "x", "signatures": "mine", "keys": []}', BAD),
        "a hundred thousand signatures": (lambda: json.dumps({"payload": "", "payloadType": "x", "keys": [],
                                          "signatures": [{"keyid": "a", "sig": "YQ=="}] * 100_000}), BAD),
        "subjects that are a number": (lambda: doors.envelope({**IN_TOTO, "subject": 7}), BAD),
        "a predicate that is a list": (lambda: doors.envelope({**IN_TOTO, "subject": [], "predicate": [1]}), BAD),
        "half a letter": ('{"payload": "\ud800"}', BAD),
    },
)  # fmt: skip


def packaged(name: str, content: str) -> Callable[[], Path]:
    """A model's folder with a statement, in which one of the files that MLflow writes is another."""

    def make() -> Path:
        place = Path("model/artifacts/evidence/statement.intoto.jsonl")
        place.parent.mkdir(parents=True)
        said = {**IN_TOTO, "predicateType": "urn:personalize:model:1", "subject": []}
        place.write_text(doors.envelope({**said, "predicate": {"config": {}, "packages": []}}))
        Path("model", name).parent.mkdir(parents=True, exist_ok=True)
        Path("model", name).write_text(content)
        return Path("model")

    return make


add(
    doors.model,
    {
        "a description nested without end": (packaged("MLmodel", "flavors: " + DEEP), r"MLmodel cannot be read"),
        "a description of aliases": (packaged("MLmodel", BOMB + "flavors: *i"), r"MLmodel cannot be read"),
        "a description with an object of Python": (packaged("MLmodel", "flavors: !!python/object/apply:os.getcwd []"), r"MLmodel cannot be read"),
        "packages nested without end": (packaged("conda.yaml", "dependencies: " + DEEP), r"installs cannot be read"),
        "a statement nested without end": (packaged("artifacts/evidence/statement.intoto.jsonl", DEEP), BAD),
        "code that was put in": (packaged("code/evil.py", "import os"), r"code/evil\.py was added"),
    },
)  # fmt: skip
add(
    doors.drawings,
    {
        "nested without end": (lambda: file(DEEP, "questions.json")().parent, r"nested|questions\.json"),
        "a list": (lambda: file("[]", "questions.json")().parent, r"questions\.json does not say"),
    },
)


def drawn(said: str) -> Callable[[], str]:
    """A picture that says this of itself, as ours do."""

    def make() -> str:
        from PIL import Image

        packet = f'<x:xmpmeta><rdf:li xml:lang="x-default">{said}</rdf:li></x:xmpmeta>'
        Image.new("RGB", (8, 8)).save("given.webp", xmp=packet.encode("utf-8", "surrogatepass"))
        return "given.webp"

    return make


def put(content: bytes, name: str = "given.png") -> Callable[[], str]:
    def make() -> str:
        Path(name).write_bytes(content)
        return name

    return make


def pipe() -> str:
    os.mkfifo("given.webp")
    return "given.webp"


HUGE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
UNREADABLE, UNSHOWN = r"cannot be read as a picture", r"is not shown to be what it says"
add(
    doors.picture,
    {
        "a pipe": (pipe, r"pipe or a device"),
        "a device without end": ("/dev/zero", r"pipe or a device"),
        "a folder": (lambda: str(Path.cwd()), UNREADABLE),
        "nothing": (put(b""), UNREADABLE),
        "of 60,000 pixels a side": (put(HUGE), UNREADABLE),
        "that says a text nested without end": (drawn(DEEP), UNREADABLE),
        "that says a list": (drawn("[1]"), UNREADABLE),
        "that says no JSON": (drawn("chair"), UNREADABLE),
        "that says nothing": (drawn("{}"), UNSHOWN),
        "with a seed of words": (drawn('{"prompt": "a", "base": "x", "seed": "seven"}'), UNSHOWN),
        "with a seed of 400 digits": (drawn('{"prompt": "a", "base": "x", "seed": 1%s}' % ("0" * 400)), UNSHOWN),
        "of a version of markup": (drawn('{"prompt": "a", "registered_model": "<b>", "version": "../1"}'), UNSHOWN),
        "of a version that is a list": (drawn('{"prompt": "a", "registered_model": [1], "version": {"a": 1}}'), UNSHOWN),
        "of adapters that are a number": (drawn('{"prompt": "a", "registered_model": "chairs", "adapters": 7}'), UNSHOWN),
    },
)  # fmt: skip


# Requests.


def row(**cells: Any) -> list[dict[str, Any]]:
    return [{"prompt": "a zwvchr chair", **cells}]


def nested(depth: int) -> Any:
    made: Any = []
    for _ in range(depth):
        made = [made]
    return made


add(
    doors.request,
    {
        "no rows": ([], r"no rows"),
        "a million rows": (lambda: row() * 1_000_000, r"1000000 rows"),
        "no prompt": (row(prompt=None), r"row 0: prompt is missing"),
        "a prompt of blanks": (row(prompt=" \t\n\0"), r"row 0: prompt is missing"),
        "a prompt that is a number": (row(prompt=7), r"row 0: prompt must be text"),
        "a prompt that is a list nested without end": (lambda: row(prompt=nested(100_000)), r"row 0: prompt must be text"),
        "a prompt of 10 MB": (lambda: row(prompt="a" * 10_000_000), r"10,000,000 characters"),
        "a prompt of 4,000 words": (row(prompt="a " * 1999), r"tokens long"),
        "a seed that is a word": (row(seed="7; drop table"), r"seed must be a number"),
        "a seed below zero": (row(seed=-1), r"seed -1 is outside"),
        "a seed of half": (row(seed=0.5), r"not a whole number"),
        "a seed of 400 digits": (row(seed=10**400), r"seed must be a number"),
        "a seed beyond all numbers": (row(seed=float("inf")), r"seed inf"),
        "a seed of yes": (row(seed=True), r"seed must be a number"),
        "a seed nested without end": (lambda: row(seed=nested(100_000)), r"seed must be a number"),
        "a width of one": (row(width=1), r"1 x 128 pixels .* is not a size"),
        "a width that is no multiple": (row(width=65), r"65 x 128 pixels .* is not a size"),
        "a width of a billion": (row(width=10**9), r"width 1000000000 is outside"),
        "more pixels than are drawn": (row(width=8192, height=8192), r"pixels"),
        "a million steps": (row(num_inference_steps=10**6), r"num_inference_steps 1000000 is outside"),
        "a million pictures": (row(num_images=10**6), r"num_images 1000000 is outside"),
        "a scale of no number": (row(guidance_scale="nan"), r"guidance_scale must be a number"),
        "a scale of the strength of ten": (row(adapter_scale=10), r"adapter_scale 10 is outside"),
        "a format of pages": (row(format="html"), r"format 'html' is not one of"),
        "a subject of markup": (row(subject="<script>"), r"subject '<script>' is not known"),
        "a subject that is a list": (row(subject=["a"]), r"subject must be text"),
        "a column that nobody knows": (row(__class__=1), r"'__class__' is not known"),
        "a column of 10 MB": (lambda: row(**{"x" * 10_000_000: 1}), r"is not known"),
        "ten thousand columns": (lambda: row(**{f"c{n}": n for n in range(10_000)}), r"is not known"),
        "a column without a name": ([{"prompt": "a", None: 1}], r"'None' is not known"),
    },
)  # fmt: skip
add(
    doors.body,
    {
        "nested without end": (DEEP.encode(), r"nested too deep"),
        "nested maps without end": (b'{"a":' * 50_000, r"nested too deep"),
        "a parameter that nobody knows": (
            b'{"inputs": [{"prompt": "a"}], "params": {"<b>": 1}}',
            r"'<b>' is not known",
        ),
        "columns that nobody knows": (
            b'{"dataframe_split": {"columns": [["a"], {"b": 1}], "data": []}}',
            r"is not known",
        ),
    },
)

"""Encoding: a picture as a file that says by itself how it was made. Imports no torch.

The facts travel as an XMP packet, the one kind of metadata that PNG, WebP and JPEG share: prompt and seed as JSON in
`dc:description`, and IPTC's `DigitalSourceType = trainedAlgorithmicMedia`, by which viewers and archives know that a
model drew the picture. Where there is a key, a signed manifest holds the file to it (`evidence.manifest`).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from html import unescape
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from personalize.files import parse_json

if TYPE_CHECKING:
    from PIL import Image

    from personalize.evidence.manifest import Signing

QUALITY = 90
SUFFIX = {"webp": ".webp", "png": ".png", "jpeg": ".jpg"}

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmp:CreatorTool={tool}'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia">'
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{facts}</rdf:li></rdf:Alt></dc:description>'
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def encode(image: Image.Image, encoding: str, facts: Mapping[str, Any], signing: Signing | None = None) -> bytes:
    """The picture as a `webp`, `png` or `jpeg` file that carries `facts` (whatever JSON can say).

    signing: puts a signed manifest of them into it; two files of one picture then differ, and their pixels do not.
    """
    packet = _PACKET.format(tool=quoteattr("personalize"), facts=escape(json.dumps(dict(facts)))).encode()
    target = io.BytesIO()
    if encoding == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        image.save(target, "png", pnginfo=info)
    else:
        image.save(target, encoding, quality=QUALITY, xmp=packet)
    data = target.getvalue()
    return signing.sign(data, encoding, facts) if signing else data


def facts_of(data: bytes) -> dict[str, Any]:
    """What `encode` wrote into the file; empty where it says nothing. Raises ValueError where that cannot be read."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = packet.decode() if isinstance(packet, bytes) else str(packet)
    found = re.search(r'<rdf:li xml:lang="x-default">(.*?)</rdf:li>', text, re.DOTALL)
    facts = parse_json(unescape(found.group(1))) if found else {}
    if not isinstance(facts, dict):
        raise ValueError(f"what it says of itself is a {type(facts).__name__}")
    return facts


def file_stem(prompt: str, seed: Any = None) -> str:
    """`A photo, of ä chair!` and 7 → `a-photo-of-ä-chair-7`: a file name that says what is in it.

    Letters and digits of every script are kept; nothing of a prompt can leave a folder or upset a shell.
    """
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-").encode()[:120].decode(errors="ignore").rstrip("-")
    return (words or "picture") + ("" if seed is None else f"-{seed}")

"""The manifest in a picture: a C2PA claim, signed here, of what drew it. Offline; nobody is asked for a timestamp.

It says IPTC's `trainedAlgorithmicMedia` and, in the assertion `personalize.picture`, what the picture was made from; of
the texts their sha256. It holds for the file's very bytes. The machine's own key signs: it makes for itself the two
certificates that C2PA wants, an authority's and a signer's. A team's certificates are `CERTIFICATES`.

Whose word it is: the id of the key of the chain's last certificate, which the manifest carries along and to which the
signature must lead. Of the machine's own key that is the id that its statements are signed with (`statement.short`).

Sources: C2PA Technical Specification 2.2 (13.2 Signature Algorithms, 14.5 X.509 Certificates); c2pa-rs settings.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.evidence import keys
from personalize.evidence.statement import EvidenceError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

CERTIFICATES = "PERSONALIZE_SIGNING_CERTIFICATES"
"""Environment variable: the path of a PEM file with the signing key's certificate, and each one's issuer after it."""
ASSERTION = "personalize.picture"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
TEXTS = ("prompt", "negative_prompt")
"""Facts of which the manifest has the sha256 alone, as `prompt_sha256`."""
YEARS = 20
MIME = {"webp": "image/webp", "png": "image/png", "jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Manifest:
    """What a picture's manifest says.

    key: whose word it is, empty where that is not shown. generated: it says that a model drew it. wrong: what does not
    hold, in words.
    """

    facts: Mapping[str, Any]
    key: str = ""
    generated: bool = False
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signing:
    """Signs pictures with one key; for any number of threads. origin: what holds of all of them."""

    private: bytes = field(repr=False)
    algorithm: str
    certificates: str
    origin: Mapping[str, Any]

    def sign(self, picture: bytes, encoding: str, facts: Mapping[str, Any]) -> bytes:
        """The file with its manifest: the same pixels, some 5 kB more. encoding: a key of MIME. facts: plain JSON."""
        import c2pa

        said = {**self.origin, **hashed(facts), "authority": authority(self.certificates)}
        action = {"action": "c2pa.created", "digitalSourceType": GENERATED}
        manifest = {
            "claim_generator_info": [{"name": "personalize"}],
            "format": MIME[encoding],
            "assertions": [
                {"label": "c2pa.actions", "data": {"actions": [action]}},
                {"label": ASSERTION, "data": said},
            ],
        }
        info = c2pa.C2paSignerInfo(self.algorithm, self.certificates.encode(), self.private, None)
        signed = io.BytesIO()
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, context=self._context) as builder:
            builder.sign(signer, MIME[encoding], io.BytesIO(picture), signed)
        return signed.getvalue()

    @cached_property
    def _context(self) -> Any:
        import c2pa

        # a thumbnail would be the picture once more, and checking what was just signed costs as much as signing it
        settings = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
        return c2pa.Context.from_dict(settings)


def signing(origin: Mapping[str, Any], setting: str = "") -> Signing | None:
    """What signs pictures on this machine; None where nothing is signed. setting: as for `keys.own`.

    Raises:
        EvidenceError: a key or certificates that were named cannot be used.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    own = keys.own(setting)
    if own is None:
        return None
    key = load_pem_private_key(own.private_bytes, None)
    named = os.environ.get(CERTIFICATES, "")
    made = Signing(own.private_bytes, _algorithm(key), _named(named) if named else _own_certificates(key), origin)
    _tried(made)
    return made


def read(picture: bytes, encoding: str) -> Manifest | None:
    """The manifest of a file; None where it has none. What the file says of whose it is is not believed but checked.

    Raises:
        EvidenceError: it has one that cannot be read.
    """
    import c2pa

    try:
        store = _store(picture, encoding, {"verify": {"verify_trust": False}})
        if store is None:
            return None
        active = store["manifests"][store["active_manifest"]]
        assertions = {each["label"]: each["data"] for each in active["assertions"]}
        facts = dict(assertions[ASSERTION])
        actions = next(data for label, data in assertions.items() if label.startswith("c2pa.actions"))["actions"]
        root = str(facts.pop("authority"))
        # the second look believes that one authority, and so tells whether the signature leads to it
        trust = {"trust_anchors": root}
        checked = _store(picture, encoding, {"verify": {"verify_trust": True}, "trust": trust})
        state, key = (checked or {}).get("validation_state"), _key_id(root)
    except (c2pa.C2paError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise EvidenceError(f"a manifest that cannot be read ({error or type(error).__name__})") from error
    wrong = tuple(
        f"{each.get('explanation') or each['code']} ({each['code']})"
        for each in (checked or {}).get("validation_status", [])
    )
    generated = any(action.get("digitalSourceType") == GENERATED for action in actions)
    return Manifest(facts, key if state == "Trusted" else "", generated, wrong)


def hashed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with each text of TEXTS replaced by its sha256."""
    plain = {name: value for name, value in facts.items() if name not in TEXTS}
    digests = {f"{name}_sha256": text_digest(str(facts[name])) for name in TEXTS if facts.get(name)}
    return {**plain, **digests}


def text_digest(text: str) -> str:
    """sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def authority(certificates: str) -> str:
    """The last certificate of a chain, both in PEM. Raises ValueError where there is none."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificates

    return load_pem_x509_certificates(certificates.encode())[-1].public_bytes(Encoding.PEM).decode()


def _store(picture: bytes, encoding: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    import c2pa

    try:
        with c2pa.Reader(MIME[encoding], io.BytesIO(picture), context=c2pa.Context.from_dict(settings)) as reader:
            return dict(json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return None


def _key_id(certificate: str) -> str:
    from cryptography.x509 import load_pem_x509_certificate
    from securesystemslib.signer import SSlibKey

    return str(SSlibKey.from_crypto(load_pem_x509_certificate(certificate.encode()).public_key()).keyid)


def _algorithm(key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    raise EvidenceError("the signing key is of a kind that C2PA does not take; Ed25519, P-256, P-384 and RSA are")


def _named(place: str) -> str:
    try:
        return Path(place).expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise EvidenceError(f"the certificates {place} ({CERTIFICATES}) cannot be read ({error})") from error


def _own_certificates(key: Any) -> str:
    """The key's own: a signer's certificate and an authority's. C2PA refuses a signer's that has signed itself."""
    from cryptography.hazmat.primitives.serialization import Encoding

    both = (_certificate(key, "signs pictures", authority=False), _certificate(key, "authority", authority=True))
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in both)


def _certificate(key: Any, name: str, authority: bool) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def called(role: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "personalize")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, role)])

    now, public = datetime.datetime.now(datetime.UTC), key.public_key()
    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    uses |= {"decipher_only": False, "digital_signature": not authority}
    uses |= dict.fromkeys(("key_cert_sign", "crl_sign"), authority)
    builder = (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called("authority"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**uses), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    if not authority:
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purposes, critical=False)
    return builder.sign(key, None if isinstance(key, Ed25519PrivateKey) else SHA256())


def _tried(made: Signing) -> None:
    """One pixel is signed and read, so that a certificate which does not fit is known before anything is drawn."""
    import base64

    import c2pa

    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    way_out = f"the signing key and its certificates ({CERTIFICATES}) do not sign a picture"
    try:
        found = read(made.sign(base64.b64decode(pixel), "png", {}), "png")
    except (c2pa.C2paError, EvidenceError, ValueError) as error:
        raise EvidenceError(f"{way_out}: {error}") from error
    if found is None or not found.key:
        said = "; ".join(found.wrong) if found else "nothing was written"
        raise EvidenceError(f"{way_out}: {said}")

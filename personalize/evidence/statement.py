"""Statements: in-toto Statement v1 in a DSSE envelope, which carries the public key that checks it.

    {"payloadType": "application/vnd.in-toto+json", "payload": base64, "signatures": [{"keyid", "sig"}], "keys": [PEM]}

A key is named by its id, which is computed from it, so whoever knows the id needs no copy of the key. `keys` is ours;
other readers of DSSE pass over it. An envelope without a signature is unsigned: it shows damage, and no forgery.

Sources: in-toto Attestation Framework v1.1 (Statement, ResourceDescriptor); DSSE v1.0.2 (secure-systems-lab/dsse).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalize.files import parse_json

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
SUFFIX = ".intoto.jsonl"
"""What in-toto calls a file of envelopes, one a line."""
PROVENANCE = f"provenance{SUFFIX}"
"""Artifact of a step's run: what it made, and from what."""


class EvidenceError(ValueError):
    """Evidence that is missing, damaged or forged; the message says which, as a sentence's end."""


@dataclass(frozen=True)
class Statement:
    """subjects: sha256 by name. key: the id of the key that signed it, empty where nobody did."""

    subjects: Mapping[str, str]
    kind: str
    predicate: Mapping[str, Any]
    key: str = ""


def write(subjects: Mapping[str, str], kind: str, predicate: Mapping[str, Any], signer: CryptoSigner | None) -> str:
    """The envelope, one line of JSON. signer: None leaves it unsigned."""
    from securesystemslib.dsse import Envelope

    content = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": predicate,
    }
    payload = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    envelope = Envelope(payload, PAYLOAD, {})
    keys = []
    if signer is not None:
        envelope.sign(signer)
        keys.append(public_pem(signer))
    return json.dumps({**envelope.to_dict(), "keys": keys}) + "\n"


def read(text: str, kind: str = "") -> Statement:
    """The statement in an envelope, its signature checked; whether its key is trusted is the reader's to say.

    kind: the predicate type that is expected.

    Raises:
        EvidenceError: it is no envelope, its signature does not fit, or it speaks of something else.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Key, SSlibKey

    try:
        content = parse_json(text)
        keys: list[Key] = [SSlibKey.from_crypto(load_pem_public_key(pem.encode())) for pem in content.get("keys", [])]
        envelope = Envelope.from_dict(content)
        signed_by = ""
        if envelope.signatures:
            (signed_by,) = envelope.verify(keys, 1)
        body = parse_json(envelope.payload)
        if envelope.payload_type != PAYLOAD or body["_type"] != STATEMENT:
            raise ValueError("it is no in-toto statement")
        subjects = {one["name"]: one["digest"]["sha256"] for one in body["subject"]}
        statement = Statement(subjects, body["predicateType"], dict(body["predicate"]), signed_by)
    except VerificationError as error:
        raise EvidenceError("a signature that does not fit: somebody changed the statement") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"a statement that cannot be read ({error or type(error).__name__})") from error
    if kind and statement.kind != kind:
        raise EvidenceError(f"a statement of something else ({statement.kind})")
    return statement


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """How digests by name differ, in words: `x was changed`, `x is gone`, `x was added`."""
    said = [f"{name} {'was changed' if name in now else 'is gone'}" for name in then if now.get(name) != then[name]]
    return said + [f"{name} was added" for name in sorted(set(now) - set(then))]


def public_pem(signer: CryptoSigner) -> str:
    """The public half of a key, as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    public = load_pem_private_key(signer.private_bytes, None).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def short(key: str) -> str:
    """A key's id as people read it."""
    return f"key {key[:12]}" if key else "nobody (unsigned)"

"""The key that this machine signs with: made at first use, or the team's. It never lies in the repository."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from personalize.evidence.statement import EvidenceError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

SETTING = "PERSONALIZE_SIGNING_KEY"
"""Environment variable: a private key (PEM, PKCS#8), the path of one, or `off`. It comes before the recipe's own."""
OFF = "off"
PEM = "-----BEGIN "


def own(setting: str = "") -> CryptoSigner | None:
    """The key to sign with; None where signing is off, or no key can be kept on this machine.

    setting: of the recipe; a path or `off`, empty is the user's own key, which is made where there is none yet.

    Raises:
        EvidenceError: a key that was named is not there or cannot be read.
    """
    chosen = named(setting)
    if chosen == OFF:
        return None
    if chosen:
        return _read(chosen.encode(), SETTING) if chosen.startswith(PEM) else _load(Path(chosen))
    place = own_place()
    if not place.exists():
        try:
            make(place)
        except (OSError, RuntimeError):  # a container without a home
            return None
    return _load(place)


def named(setting: str = "") -> str:
    """What to sign with, where somebody has said it: a key as PEM, the whole path of one, or `off`; else empty."""
    chosen = os.environ.get(SETTING, "").strip() or setting
    return chosen if chosen in ("", OFF) or chosen.startswith(PEM) else str(Path(chosen).expanduser().absolute())


def own_id(setting: str = "") -> str:
    """Its id: 64 hexadecimal digits; empty where there is none."""
    signer = own(setting)
    return "" if signer is None else str(signer.public_key.keyid)


def own_place() -> Path:
    """Where the user's own key lies."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "personalize" / "signing_key.pem"


def make(place: Path) -> None:
    """A new Ed25519 key that only its owner may read. Of two processes that make it at once the first one wins.

    Raises OSError where it cannot be kept there.
    """
    from securesystemslib.signer import CryptoSigner

    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=".signing", dir=place.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(CryptoSigner.generate_ed25519().private_bytes)
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(part, place)
    finally:
        Path(part).unlink(missing_ok=True)


def _load(place: Path) -> CryptoSigner:
    try:
        return _read(place.read_bytes(), str(place))
    except OSError as error:
        raise EvidenceError(f"the signing key {place} cannot be read ({error.strerror}); {_way_out(place)}") from error


def _read(pem: bytes, place: str) -> CryptoSigner:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        return CryptoSigner(load_pem_private_key(pem, None))
    except (ValueError, TypeError) as error:  # no PEM; one that wants a password
        words = f"{place} is no private key in PEM without a password; {_way_out('key.pem')}"
        raise EvidenceError(words) from error


def _way_out(place: object) -> str:
    return f"make one with `openssl genpkey -algorithm ed25519 -out {place}`, or set {SETTING}=off"

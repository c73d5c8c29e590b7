"""The signed manifest in a picture: whose it is, what it says, and what happens to a picture that is changed."""

import datetime
import io
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from securesystemslib.signer import SSlibKey

from personalize.evidence import keys
from personalize.evidence.manifest import CERTIFICATES, GENERATED, MIME, authority, read, signing, text_digest
from personalize.evidence.statement import EvidenceError
from personalize.serving.encoding import encode, facts_of
from personalize.serving.request import MANIFEST_BYTES

ORIGIN = {"registered_model": "chairs", "version": "3", "adapters": {"a.safetensors": "ab" * 32}}
FACTS = {"prompt": "a <chair> 椅", "negative_prompt": "", "seed": 7, "guidance_scale": 5.0, "adapter_scale": 0.5}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(params=list(MIME))
def encoding(request) -> str:
    return request.param


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_it_says_what_drew_the_picture_and_whose_word_that_is(encoding: str):
    found = read(encode(NOISE, encoding, FACTS, signing(ORIGIN)), encoding)
    assert found.facts == {
        **ORIGIN,
        **{name: FACTS[name] for name in ("seed", "guidance_scale", "adapter_scale")},
        "prompt_sha256": text_digest(FACTS["prompt"]),
    }
    assert (found.key, found.generated, found.wrong) == (keys.own_id(), True, ())


def test_it_changes_no_pixel_and_nothing_that_was_in_the_file(encoding: str):
    plain, signed = encode(NOISE, encoding, FACTS), encode(NOISE, encoding, FACTS, signing(ORIGIN))
    assert np.array_equal(pixels(plain), pixels(signed))
    assert facts_of(signed) == FACTS
    assert 0 < len(signed) - len(plain) < MANIFEST_BYTES


def test_the_prompts_text_is_not_in_it():
    signed = signing(ORIGIN).sign(encode(NOISE, "png", {}), "png", {"prompt": "a marchioness"})
    assert b"marchioness" not in signed


def test_a_picture_that_was_changed_shows(encoding: str):
    signed = encode(NOISE, encoding, FACTS, signing(ORIGIN))
    found = read(signed.replace(b"CreatorTool", b"CreatorT00l", 1), encoding)  # in its XMP
    assert "dataHash.mismatch" in found.wrong[0]


def test_a_picture_without_one(encoding: str):
    assert read(encode(NOISE, encoding, FACTS), encoding) is None


def test_whose_it_is_is_not_believed_but_checked(tmp_path: Path, monkeypatch):
    """Somebody signs with a key of his own and puts our authority's certificate into the manifest."""
    ours = signing(ORIGIN)
    keys.make(tmp_path / "other.pem")
    monkeypatch.setenv(keys.SETTING, str(tmp_path / "other.pem"))
    theirs = signing(ORIGIN)
    assert read(encode(NOISE, "png", FACTS, theirs), "png").key == keys.own_id()
    monkeypatch.setattr("personalize.evidence.manifest.authority", lambda certificates: authority(ours.certificates))
    forged = read(encode(NOISE, "png", FACTS, theirs), "png")
    assert forged.key == ""
    assert "signingCredential.untrusted" in forged.wrong[0]


def test_a_manifest_of_somebody_elses_tool_says_nothing_here():
    ours = signing(ORIGIN)
    info = c2pa.C2paSignerInfo("ed25519", ours.certificates.encode(), ours.private, None)
    action = {"action": "c2pa.created", "digitalSourceType": GENERATED}
    actions = {"label": "c2pa.actions", "data": {"actions": [action]}}
    manifest = {"claim_generator_info": [{"name": "another tool"}], "assertions": [actions]}
    target = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest) as builder:
        builder.sign(signer, "image/png", io.BytesIO(encode(NOISE, "png", {})), target)
    with pytest.raises(EvidenceError, match="a manifest that cannot be read"):
        read(target.getvalue(), "png")


def test_nothing_is_signed_where_signing_is_off(monkeypatch):
    monkeypatch.setenv(keys.SETTING, "off")
    assert signing(ORIGIN) is None


def test_a_key_may_stand_in_the_variable_itself(monkeypatch):
    """As a server gets a secret."""
    own, pem = keys.own_id(), keys.own().private_bytes.decode()
    monkeypatch.setenv(keys.SETTING, pem)
    assert read(encode(NOISE, "png", FACTS, signing(ORIGIN)), "png").key == own
    monkeypatch.setenv(keys.SETTING, pem.splitlines()[0])
    with pytest.raises(EvidenceError, match=f"{keys.SETTING} is no private key"):
        signing(ORIGIN)


class Team:
    """Certificates as a company issues them: root, issuing authority, and a person's."""

    def __init__(self, kind: str) -> None:
        make = {
            "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "rsa": lambda: rsa.generate_private_key(65537, 2048),
        }[kind]
        self.root, self.issuing, self.person = make(), make(), make()
        self.chain = [
            self.certificate("Ann", self.person, "issuing", self.issuing, False),
            self.certificate("issuing", self.issuing, "root", self.root, True),
            self.certificate("root", self.root, "root", self.root, True),
        ]

    def certificate(self, name: str, key, issuer: str, by, is_authority: bool) -> bytes:
        def called(one: str) -> x509.Name:
            return x509.Name(
                [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "S"), x509.NameAttribute(NameOID.COMMON_NAME, one)]
            )

        now = datetime.datetime.now(datetime.UTC)
        usage = [not is_authority, False, False, False, False, is_authority, is_authority, False, False]
        builder = (
            x509.CertificateBuilder(called(issuer), called(name), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(x509.KeyUsage(*usage), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), False)
        )
        if not is_authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def use(self, folder: Path, monkeypatch, certificates: int) -> None:
        pkcs8 = serialization.PrivateFormat.PKCS8
        private = self.person.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
        (folder / "key.pem").write_bytes(private)
        (folder / "chain.pem").write_bytes(b"".join(self.chain[:certificates]))
        monkeypatch.setenv(keys.SETTING, str(folder / "key.pem"))
        monkeypatch.setenv(CERTIFICATES, str(folder / "chain.pem"))


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
def test_a_teams_certificate_speaks_for_its_authority(tmp_path: Path, monkeypatch, kind: str):
    team = Team(kind)
    team.use(tmp_path, monkeypatch, certificates=3)
    found = read(encode(NOISE, "webp", FACTS, signing(ORIGIN)), "webp")
    assert found.key == SSlibKey.from_crypto(team.root.public_key()).keyid
    assert not found.wrong


def test_certificates_that_do_not_fit_are_named_before_anything_is_drawn(tmp_path: Path, monkeypatch):
    team = Team("p256")
    team.use(tmp_path, monkeypatch, certificates=1)
    with pytest.raises(EvidenceError, match=f"{CERTIFICATES}.*do not sign a picture"):
        signing(ORIGIN)
    monkeypatch.setenv(keys.SETTING, str(tmp_path / "other.pem"))
    keys.make(tmp_path / "other.pem")
    with pytest.raises(EvidenceError, match="do not sign a picture"):
        signing(ORIGIN)
    monkeypatch.setenv(CERTIFICATES, str(tmp_path / "nowhere.pem"))
    with pytest.raises(EvidenceError, match=r"nowhere\.pem .* cannot be read"):
        signing(ORIGIN)

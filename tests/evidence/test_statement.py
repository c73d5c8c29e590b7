"""Envelopes that other tools can read, keys that stay with their owner."""

import base64
import json
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from personalize.evidence import keys
from personalize.evidence.statement import PAYLOAD, EvidenceError, read, write

KIND = "urn:test:1"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    keys.make(tmp_path / "config" / "key.pem")
    return tmp_path / "config" / "key.pem"


def test_what_was_signed_is_read_with_the_key_that_signed_it(key: Path, monkeypatch) -> None:
    monkeypatch.delenv(keys.SETTING, raising=False)
    found = read(write({"b": "22", "a": "11"}, KIND, {"why": "ä"}, keys.own(str(key))), KIND)
    assert (found.subjects, found.predicate, found.key) == ({"a": "11", "b": "22"}, {"why": "ä"}, keys.own_id(str(key)))


def test_the_envelope_is_dsse_and_openssl_can_check_it(key: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(keys.SETTING, raising=False)
    envelope = json.loads(write({"a": "11"}, KIND, {}, keys.own(str(key))))
    payload = base64.b64decode(envelope["payload"])
    assert envelope["payloadType"] == PAYLOAD
    assert json.loads(payload)["_type"] == "https://in-toto.io/Statement/v1"
    (tmp_path / "pae").write_bytes(b"DSSEv1 %d %b %d %b" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "public.pem").write_text(envelope["keys"][0])
    check = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "public.pem",
        "-rawin",
        "-in",
        "pae",
        "-sigfile",
        "sig",
    ]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert "Signature Verified Successfully" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda envelope: envelope.update(payload=base64.b64encode(b'{"a": 1}').decode()), "does not fit"),
        (lambda envelope: envelope.update(payloadType="text/plain"), "does not fit"),
        (lambda envelope: envelope.update(keys=[]), "cannot be read"),
        (lambda envelope: envelope.pop("payload"), "cannot be read"),
        (lambda envelope: envelope.update(keys=["no key"]), "cannot be read"),
        (lambda envelope: envelope.update(signatures=[{"keyid": "0" * 64, "sig": "AAAA"}]), "does not fit"),
    ],
)
def test_an_edited_envelope_is_refused(key: Path, monkeypatch, edit, words: str) -> None:
    monkeypatch.delenv(keys.SETTING, raising=False)
    envelope = json.loads(write({"a": "11"}, KIND, {}, keys.own(str(key))))
    edit(envelope)
    with pytest.raises(EvidenceError, match=words):
        read(json.dumps(envelope))


def test_a_statement_of_another_kind_and_what_is_none_are_refused() -> None:
    with pytest.raises(EvidenceError, match="of something else"):
        read(write({}, KIND, {}, None), "urn:test:2")
    assert read(write({}, KIND, {}, None)).key == ""
    for text in ("", "[]", "{}", "null", "1"):
        with pytest.raises(EvidenceError, match="cannot be read"):
            read(text)


def test_the_own_key_is_made_once_for_its_owner_alone_whoever_asks_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(keys.SETTING, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: keys.own_id(), range(16)))) == 1
    place = keys.own_place()
    assert place.is_relative_to(tmp_path / "config")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_machine_that_can_keep_no_key_signs_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(keys.SETTING, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert keys.own() is None
    assert keys.own_id() == ""


def test_a_teams_key_may_be_of_another_kind_and_the_variable_comes_first(
    key: Path, tmp_path: Path, monkeypatch
) -> None:
    team = tmp_path / "team.pem"
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(team)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv(keys.SETTING, str(team))
    signed = write({"a": "11"}, KIND, {}, keys.own(str(key)))
    assert read(signed).key == keys.own_id(str(team)) == keys.own_id("")
    monkeypatch.setenv(keys.SETTING, str(key.parent / "nothing.pem"))
    with pytest.raises(EvidenceError, match=r"nothing\.pem cannot be read .*openssl genpkey"):
        keys.own()
    (tmp_path / "text.pem").write_text("no key")
    monkeypatch.setenv(keys.SETTING, str(tmp_path / "text.pem"))
    with pytest.raises(EvidenceError, match="is no private key"):
        keys.own()

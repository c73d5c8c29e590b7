"""What may leave the machine is an allow-list, by kind and place; secrets are found and put out."""

import base64
import random
import subprocess
import textwrap
from pathlib import Path

import pytest

from personalize import egress
from personalize.egress import PUT_OUT, sift, without_secrets

ROOT = Path(__file__).parent.parent
SECRETS = {  # put together here, so that nobody's scanner takes them for real ones
    "Databricks Token": "dapi" + "0123456789abcdef" * 2,
    "Hugging Face Token": "hf_" + "AbCdEfGhIjKlMnOp" * 2,
    "GitHub Token": "ghp_" + "a1B2c3D4e5F6" * 3,
    "AWS Access Key": "AKIA" + "QWERTYUIOP123456",
    "Password in an Address": "https://me:" + "hunter2@git.example.org/x.git",
    "Signed Address": "https://example.org/a.zip?X-Amz-Date=1&X-Amz-" + "Signature=0123456789abcdef",
    "Private Key": "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
}


def sifted(root: Path, *places: str) -> egress.Sifted:
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    return sift(root, names, lambda name: (root / name).read_bytes(), places)


def write(root: Path, *names: str, text: str = "x = 1\n") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_code_configuration_and_text_leave(tmp_path: Path) -> None:
    write(tmp_path, "steps/__init__.py", text="")
    names = ["steps/train.py", "recipe.yaml", "conda.yaml", "docs/recipe.md", "MLproject", "Makefile", "data.dvc"]
    names += ["requirements.txt", "requirements-dev.txt", "steps/templates/page.html", ".dvc/config", ".github/ci.yaml"]
    write(tmp_path, *names)
    write(tmp_path, ".ci/run", text="#!/bin/sh\n")
    assert sifted(tmp_path).left_out == {}
    assert set(sifted(tmp_path).texts) == {*names, "steps/__init__.py", ".ci/run"}


@pytest.mark.parametrize(
    "name",
    [
        *("a.jpg", "a.PNG", "a.heic", "photographs.zip", "a.tar.gz", "w.safetensors", "w.pt", "w.ckpt", "a.db"),
        *("mlflow.db", "names.csv", "rows.parquet", "metadata.jsonl", "answers.json", "names.txt", "talk.ipynb"),
        *(".env", ".env.local", "prod.env", ".envrc", ".netrc", ".npmrc", "id_rsa", "key.pem", ".databrickscfg"),
        *("secrets.yaml", "credentials.toml", ".aws/config.toml", ".streamlit/secrets.toml", "settings.local.yaml"),
    ],
)
def test_no_other_kind_leaves(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    assert sifted(tmp_path).texts == {}
    assert len(sifted(tmp_path).left_out) == 1


def test_nothing_under_a_data_path_leaves_and_a_folder_is_named_once(tmp_path: Path) -> None:
    write(tmp_path, "photographs/chair/a.yaml", "photographs/chair/b.md", "teapot/c.py", "own/d.md", "pinned/e.yaml")
    write(tmp_path, "own.dvc", text="outs:\n- md5: 0\n  path: pinned\n")
    write(tmp_path, "profiles/studio.yaml", text="DATA: own\n")
    found = sifted(tmp_path, str(tmp_path / "teapot"))
    assert set(found.texts) == {"own.dvc", "profiles/studio.yaml"}
    assert found.left_out == {
        "photographs/": "data, 2 files",
        "teapot/": "data, 1 file",
        "own/": "data, 1 file",
        "pinned/": "data, 1 file",
    }


def test_a_folder_of_pictures_is_data_and_a_text_with_a_picture_in_it_is_not(tmp_path: Path) -> None:
    write(tmp_path, "teapot/1.jpg", "teapot/2.JPG", "teapot/about.md", "teapot/more/notes.md")
    write(tmp_path, "docs/a.md", "docs/b.md", "docs/card.webp", "front.jpg", "README.md")
    found = sifted(tmp_path)
    assert set(found.texts) == {"docs/a.md", "docs/b.md", "README.md"}
    assert found.left_out["teapot/"] == "a folder of pictures, 4 files"


def test_the_project_itself_and_what_lies_elsewhere_are_no_data_path(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    assert set(sifted(tmp_path, ".", str(tmp_path.parent), "..", "https://example.org/a.zip").texts) == {"a.py"}


@pytest.mark.parametrize(("kind", "secret"), SECRETS.items())
def test_a_file_with_a_secret_stays_and_the_kind_is_said(tmp_path: Path, kind: str, secret: str) -> None:
    write(tmp_path, "a.py", text=f'VALUE = """{secret}"""\n')
    assert sifted(tmp_path).texts == {}
    assert "looks like a secret" in sifted(tmp_path).left_out["a.py"]
    assert secret not in str(sifted(tmp_path).left_out)


def test_a_password_by_its_name_stays_and_a_line_that_says_it_is_none_does_not(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", text="password: Tr0ub4dor-3\n")
    write(tmp_path, "b.yaml", text="password: Tr0ub4dor-3  # pragma: allowlist secret\n")
    assert set(sifted(tmp_path).texts) == {"b.yaml"}


@pytest.mark.parametrize(
    ("name", "line", "key"),
    [
        ("run.sh", "export WANDB_{}=9f3b7c11d0e4a8526b7f90c3e1d2a4b5c6d7e8f9", "API_KEY"),
        ("Makefile", "DB_{}=4711-and-more", "PASSWORD"),
        ("a.yaml", "client_{}: 1a2b3c4d-1111-2222-3333-444455556666", "secret"),
        ("a.toml", '{} = "0f9e8d7c6b5a49382716"', "api_key"),
    ],
)
def test_a_secret_by_its_name_stays_whatever_it_begins_with(tmp_path: Path, name: str, line: str, key: str) -> None:
    write(tmp_path, name, text=f"{line.format(key)}\n")
    assert "looks like a secret" in sifted(tmp_path).left_out[name]


@pytest.mark.parametrize("line", ["detect-secrets==1.5.0", "secretstorage>=3.5,<4", "token = load()", "API_KEY=$KEY"])
def test_a_version_and_a_name_are_no_secrets(tmp_path: Path, line: str) -> None:
    write(tmp_path, "a.sh", text=f"{line}\n")
    assert sifted(tmp_path).left_out == {}


@pytest.mark.parametrize("how", ["address", "lines", "one line", "hexadecimal", "yaml"])
def test_a_photograph_written_as_text_stays(tmp_path: Path, how: str) -> None:
    photograph = random.Random(1).randbytes(3000)
    text = base64.b64encode(photograph).decode()
    lines = "\n".join(textwrap.wrap(text, 76))
    name, content = {
        "address": ("a.md", f"# A chair\n\n![a chair](data:image/jpeg;base64,{text})\n"),
        "lines": ("a.py", f'PICTURE = """\n{lines}\n"""\n'),
        "one line": ("a.py", f'PICTURE = "{text}"\n'),
        "hexadecimal": ("a.py", f'PICTURE = bytes.fromhex("{photograph.hex()}")\n'),
        "yaml": ("a.yaml", "picture: !!binary |\n" + textwrap.indent(lines, "  ") + "\n"),
    }[how]
    write(tmp_path, name, text=content)
    assert sifted(tmp_path).left_out == {name: "holds data written as text"}


def test_a_lock_with_its_hashes_is_no_data(tmp_path: Path) -> None:
    hashes = [f"    --hash=sha256:{random.Random(number).randbytes(32).hex()} \\\n" for number in range(100)]
    write(tmp_path, "requirements.lock", text="numpy==2.4.6 \\\n" + "".join(hashes) + "\n# " + "-" * 3000)
    assert sifted(tmp_path).left_out == {}


def test_a_secret_that_a_patch_does_not_show_keeps_the_file_here(tmp_path: Path) -> None:
    write(tmp_path, "a.py", text=f"KEY = '{SECRETS['GitHub Token']}'\n")
    assert sift(tmp_path, ["a.py"], lambda name: b"+x = 1\n").texts == {}


def test_links_large_files_binary_files_and_more_than_the_total_stay(tmp_path: Path) -> None:
    write(tmp_path, "small.md", text="small")
    write(tmp_path, "large.md", text="a b " * (egress.MOST_FILE_BYTES // 4 + 1))
    (tmp_path / "binary.py").write_bytes(b"\x00\xff")
    (tmp_path / "link.py").symlink_to("/etc/hostname")
    for number in range(6):
        write(tmp_path, f"{number}.md", text="a b " * (egress.MOST_FILE_BYTES // 4))
    found = sifted(tmp_path)
    assert "small.md" in found.texts
    assert sum(map(len, found.texts.values())) <= egress.MOST_BYTES
    assert {"large.md", "binary.py", "link.py"} < set(found.left_out)
    assert sum("in all" in why for why in found.left_out.values()) == 3


def test_this_projects_own_code_is_not_taken_for_a_secret() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "personalize", "steps", "profiles", "*.yaml", "*.lock", "*.txt", "*.toml"],
        cwd=ROOT,
        capture_output=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    assert len(names) > 100
    assert sift(ROOT, names, lambda name: (ROOT / name).read_bytes(), most=10**8).left_out == {}


@pytest.mark.parametrize("secret", SECRETS.values())
def test_secrets_are_put_out_of_texts(secret: str) -> None:
    shown = without_secrets(f"before {secret} after")
    assert PUT_OUT in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert not any(part in shown for part in ("hunter2", "0123456789abcdef", "MIIEow", "AKIA", "ghp_", "hf_"))


@pytest.mark.parametrize(
    "text",
    [
        "commit 462165984030d82259a11f4367a4eed129e94a7b",
        "a" * 64,
        "git@github.com:someone/personalize.git",
        "a photo of a zwvchr chair; seed=3",
        "https://example.org/photographs.zip?version=12",
        "data:image/png;base64," + "AKIA" + "QWERTYUIOP123456",  # a picture's bytes
    ],
)
def test_digests_addresses_prompts_and_pictures_stay_as_they_are(text: str) -> None:
    assert without_secrets(text) == text

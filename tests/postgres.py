"""A PostgreSQL of one's own, for the tests that need one: Debian's package, in a folder that goes afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from personalize.serving.ports import free_port


def _programs() -> Path:
    """Where initdb and postgres are. Skips, loudly, where they are not installed, or their Python client is not."""
    pytest.importorskip("psycopg", reason="POSTGRESQL NOT TESTED: psycopg is not installed (requirements-dev.txt)")
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = there[-1] if there else shutil.which("initdb")
    if not found:
        pytest.skip("POSTGRESQL NOT TESTED: initdb is not there (Debian: apt install postgresql)")
    return Path(found).parent


def _account() -> dict[str, str]:
    """Whose process it is: PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    names = {user.pw_name for user in pwd.getpwall()}
    return {"user": "postgres" if "postgres" in names else "nobody"}


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A database that is there as long as the block; gives its address for MLflow."""
    programs, account, port = _programs(), _account(), free_port()
    place = Path(tempfile.mkdtemp(prefix="postgres-"))
    if account:
        shutil.chown(place, account["user"])
    options = ["-c", f"unix_socket_directories={place}", "-c", "fsync=off", "-c", "max_connections=100"]
    try:
        made = [programs / "initdb", "-D", place / "data", "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(made, cwd=place, check=True, capture_output=True, **account)
        with (place / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", place / "data", "-h", "127.0.0.1", "-p", str(port), *options],
                cwd=place, stdout=log, stderr=log, **account,
            )  # fmt: skip
        try:
            _await(port, server, place / "log")
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()  # after the clients have gone
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _await(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=mlflow dbname=postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.1)

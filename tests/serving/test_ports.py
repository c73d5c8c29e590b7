"""Which port an endpoint gets, and what is made of a port where somebody speaks no HTTP."""

import socket
import threading

import pytest

from personalize.serving import ports
from personalize.serving.endpoint import EndpointError
from personalize.serving.http import Away, answers, post_json
from personalize.serving.ports import choose_port

HOST = "127.0.0.1"


@pytest.fixture
def taken():
    """A listening socket."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening


def test_a_port_that_a_killed_keeper_lets_go_late_is_waited_for(tmp_path, taken):
    port = taken.getsockname()[1]
    threading.Timer(0.3, taken.close).start()
    assert choose_port(tmp_path, HOST, 0, None, port) == port


def test_one_that_somebody_keeps_is_not_waited_for_long(tmp_path, taken, monkeypatch):
    monkeypatch.setattr(ports, "LET_GO_S", 0.1)
    port = taken.getsockname()[1]
    assert choose_port(tmp_path, HOST, 0, None, port) != port
    with pytest.raises(EndpointError, match=f"Port {port} on {HOST} is in use"):
        choose_port(tmp_path, HOST, port, None, 0)


def test_who_speaks_no_http_does_not_answer(taken):
    def speak() -> None:
        for _ in range(2):
            caller, _ = taken.accept()
            with caller:
                caller.recv(65536)
                caller.sendall(b"220 mail is delivered here\r\n")

    threading.Thread(target=speak, daemon=True).start()
    address = "http://{}:{}".format(*taken.getsockname())
    assert not answers(f"{address}/health")
    with pytest.raises(Away, match="does not answer"):
        post_json(f"{address}/invocations", {}, 5)

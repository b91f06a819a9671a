"""The client of the control socket, against answers of every kind."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from colonel import control

Serve = Callable[[bytes], str]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[str, list[dict]]]]:
    """A socket that answers one request with given bytes."""
    servers = []

    def serve(answer: bytes) -> tuple[str, list[dict]]:
        path, asked = str(tmp_path / f"{len(servers)}.sock"), []
        server = socket.socket(socket.AF_UNIX)
        servers.append(server)
        server.bind(path)
        server.listen()

        def answer_one() -> None:
            client, _ = server.accept()
            with client:
                (length,) = struct.unpack("<I", client.recv(4))
                asked.append(json.loads(client.recv(length)))
                client.sendall(answer)

        threading.Thread(target=answer_one, daemon=True).start()
        return path, asked

    yield serve
    for server in servers:
        server.close()


def framed(reply: dict) -> bytes:
    text = json.dumps(reply).encode()
    return struct.pack("<I", len(text)) + text


def test_a_window_is_asked_for_and_its_number_comes_back(guest) -> None:
    path, asked = guest(framed({"version": 1, "ok": True, "state": "capturing", "window": 3, "later_field": 1}))
    assert control.start(path, "decode", 5.0) == control.Reply(state="capturing", window=3)
    assert asked == [{"version": 1, "op": "start", "name": "decode", "nested": True}]


def test_a_window_is_closed_by_its_number(guest) -> None:
    path, asked = guest(framed({"version": 1, "ok": True, "state": "armed", "window": 3}))
    assert control.stop(path, 3, 5.0).state == "armed"
    assert asked == [{"version": 1, "op": "stop", "window": 3}]


def test_a_refusal_is_told_in_the_guests_words(guest) -> None:
    path, _ = guest(framed({"version": 1, "ok": False, "state": "off", "error": "another CUPTI client is here"}))
    with pytest.raises(control.ControlError, match="another CUPTI client is here"):
        control.start(path, None, 5.0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed in the middle"),
        (framed({"ok": True})[:7], "closed in the middle"),
        (struct.pack("<I", 2**31), "bytes, of 65536 at most"),
        (struct.pack("<I", 4) + b"nope", "can't be read"),
        (struct.pack("<I", 2) + b"\xff\xfe", "can't be read"),
    ],
)
def test_nonsense_is_no_answer(guest, answer: bytes, message: str) -> None:
    path, _ = guest(answer)
    with pytest.raises(control.ControlError, match=message):
        control.start(path, None, 5.0)


def test_a_socket_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(control.ControlError, match="does not answer"):
        control.stop(str(tmp_path / "gone.sock"), 1, 5.0)


def test_a_process_that_is_stopped(tmp_path: Path) -> None:
    path = str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(control.ControlError, match="no answer within 0 s; is the process stopped"):
            control.start(path, None, 0.05)


def test_a_name_that_does_not_fit_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(control.ControlError, match="give a shorter name"):
        control.start(str(tmp_path / "any.sock"), "x" * 70_000, 5.0)

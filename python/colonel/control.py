"""The client of a guest's control socket: a message is a u32 length in little endian, then JSON of 64 KiB at most."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from colonel.errors import ColonelError

VERSION = 1
MAX_MESSAGE_BYTES = 64 * 1024


class ControlError(ColonelError):
    """A guest was not reached, or did not do what was asked."""


@dataclass(frozen=True)
class Reply:
    """A guest's answer."""

    state: str
    """`armed`, `capturing`, `off` or `ended`."""
    window: int | None
    """Number of the window that was opened or closed, or of the newest one."""


def start(path: str, name: str | None, timeout: float) -> Reply:
    """Opens a window, inside others that are open."""
    return _ask(path, {"op": "start", "name": name, "nested": True}, timeout)


def stop(path: str, window: int, timeout: float) -> Reply:
    """Closes a window; if no other is open then, what it recorded is on disk when this returns."""
    return _ask(path, {"op": "stop", "window": window}, timeout)


def _ask(path: str, request: dict[str, Any], timeout: float) -> Reply:
    text = json.dumps({"version": VERSION, **request}).encode()
    if len(text) > MAX_MESSAGE_BYTES:
        raise ControlError(f"a request of {len(text)} bytes, of {MAX_MESSAGE_BYTES} at most: give a shorter name")
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout)
            client.connect(path)
            client.sendall(struct.pack("<I", len(text)) + text)
            (length,) = struct.unpack("<I", _receive(client, 4))
            if length > MAX_MESSAGE_BYTES:
                raise ControlError(f"an answer of {length} bytes, of {MAX_MESSAGE_BYTES} at most")
            reply = json.loads(_receive(client, length))
    except TimeoutError:
        raise ControlError(f"no answer within {timeout:.0f} s; is the process stopped?") from None
    except OSError as error:
        raise ControlError(f"its control socket does not answer: {error}") from error
    except ValueError as error:
        raise ControlError(f"its answer can't be read: {error}") from error
    if not reply.get("ok"):
        raise ControlError(str(reply.get("error") or "refused, without a reason"))
    return Reply(state=str(reply.get("state")), window=reply.get("window"))


def _receive(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        part = client.recv(length - len(received))
        if not part:
            raise ConnectionResetError("it was closed in the middle of an answer")
        received += part
    return received

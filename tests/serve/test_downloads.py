"""Recordings by URL: from named hosts on the public internet, whole, and nothing else."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from echo_agent.errors import RecordingError
from echo_agent.serve.downloads import fetch, is_private

DATA = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert self.headers["Host"].startswith("localhost:"), "the host is asked by its name"
        status = {"/moved": 302, "/gone": 404}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/a.wav")
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


HOSTS = frozenset({"localhost"})


async def test_a_recording_is_fetched(port: int) -> None:
    found = await fetch(f"http://localhost:{port}/a.wav", HOSTS, 1 << 20, refused=lambda _: False)
    assert found == DATA


@pytest.mark.parametrize(
    ("path", "most", "message"),
    [
        ("/moved", 1 << 20, "sends elsewhere, which is not followed"),
        ("/gone", 1 << 20, "answered 404"),
        ("/a.wav", 1000, "larger than the 1000 bytes"),
    ],
)
async def test_what_is_not_a_recording(port: int, path: str, most: int, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        await fetch(f"http://localhost:{port}{path}", HOSTS, most, refused=lambda _: False)


async def test_nothing_is_fetched_from_this_machine(port: int) -> None:
    with pytest.raises(RecordingError, match="is not on the public internet"):
        await fetch(f"http://localhost:{port}/a.wav", HOSTS, 1 << 20)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://localhost/a.wav", "begins with https://"),
        ("http://user:word@localhost/a.wav", "begins with https://"),
        ("http:///a.wav", "begins with https://"),
        ("http://[::1", "is no URL"),
        ("http://localhost:99999/", "is no URL"),
        ("http://127.0.0.1/a.wav", "nothing from 127.0.0.1"),
        ("http://localhost.evil.example/a.wav", "nothing from localhost.evil.example"),
        ("http://localhost@evil.example/a.wav", "begins with https://"),
    ],
)
async def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        await fetch(url, HOSTS, 1 << 20, refused=lambda _: False)


async def test_a_host_that_is_not_there() -> None:
    with pytest.raises(RecordingError, match="there is no host none.invalid"):
        await fetch("http://none.invalid/a.wav", frozenset({"none.invalid"}), 1 << 20)


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("192.168.0.1", True), ("169.254.169.254", True), ("100.64.0.1", True),
        ("0.0.0.0", True), ("224.0.0.1", True), ("255.255.255.255", True), ("::1", True), ("fe80::1", True),
        ("fd00::1", True), ("::ffff:127.0.0.1", True), ("::ffff:10.0.0.1", True), ("1.1.1.1", False),
        ("2606:4700:4700::1111", False),
    ],
)  # fmt: skip
def test_private_addresses(address: str, private: bool) -> None:
    assert is_private(ipaddress.ip_address(address)) is private

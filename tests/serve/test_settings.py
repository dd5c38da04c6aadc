"""A server that others can reach has a key."""

from __future__ import annotations

import pytest

from echo_agent.errors import QuestionError
from echo_agent.serve.settings import check_key, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_key(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org"])
def test_a_network_needs_one(host: str) -> None:
    with pytest.raises(QuestionError, match="there is no key"):
        check_key(host, None)
    check_key(host, "long-enough")


@pytest.mark.parametrize("key", ["short", "with a space", "schlüssel-lang", "line\nbreak-1"])
def test_keys_that_cannot_be_sent_or_are_guessed(key: str) -> None:
    with pytest.raises(QuestionError, match="8 or more printable"):
        check_key("127.0.0.1", key)

"""The bench behind ``make bench``: what it sends, what it counts, and its table."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest

from bench import Target, body, load, script, table
from ccproxy.stub import StubProvider


@pytest.mark.parametrize("turns", [0, 10, 40])
@pytest.mark.parametrize("size", [50_000, 400_000])
def test_bodies_have_their_size(size: int, turns: int) -> None:
    """Its curves are told by size and by turns."""
    assert size * 0.8 < len(body(size, turns=turns)) < size * 1.2


def test_every_request_is_timed() -> None:
    """As many answers as were asked for, whole or streamed, on connections that are used again."""
    with StubProvider(script) as provider:
        target = Target("direct", f"http://{urlsplit(provider.url).netloc}", "/v1/chat/completions", os.getpid())
        for stream in (True, False):
            seconds = load(target, body(100, words=3, pause=1, stream=stream), 2, 3)
            assert len(seconds) == 6
            assert all(0 < value < 60 for value in seconds)
        assert len(provider.requests) == 12
    assert target.cpu() >= 0
    assert target.megabytes() > 1


def test_an_error_ends_it() -> None:
    """Failed requests are no figures."""
    with StubProvider(script) as provider:
        target = Target("direct", f"http://{urlsplit(provider.url).netloc}", "/nowhere", os.getpid())
        with pytest.raises(SystemExit):
            load(target, body(100), 1)


def test_the_table() -> None:
    """Figures with three digits, and the ratio to the relay where there is one."""
    lines = table({"a, ms": {"direct": 1.0, "relay": 2.0, "ccproxy": 5.0}, "b": {"ccproxy": 1234.5}}).splitlines()
    assert [line.split()[-4:] for line in lines[1:2]] == [["1", "2", "5", "2.5"]]
    assert lines[2].split() == ["b", "1.23e+03"]

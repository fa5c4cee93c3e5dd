"""What the proxy makes of an app's response."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.adapters.local.proxy.responses import BadResponse, Chunks, Framing, read_response


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("lines", "method", "framing"),
    [
        (["HTTP/1.1 200 OK", "Content-Length: 3"], b"GET", Framing.LENGTH),
        (["HTTP/1.1 200 OK", "Content-Length: 3"], b"HEAD", Framing.NONE),
        (["HTTP/1.1 304 Not Modified", "Content-Length: 3"], b"GET", Framing.NONE),
        (["HTTP/1.1 204 No Content"], b"GET", Framing.NONE),
        (["HTTP/1.1 100 Continue"], b"POST", Framing.NONE),
        (["HTTP/1.1 200 OK", "Transfer-Encoding: Chunked"], b"GET", Framing.CHUNKED),
        (["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Content-Length: 3"], b"GET", Framing.CHUNKED),
        (["HTTP/1.1 200 OK"], b"GET", Framing.CLOSE),
        (["HTTP/1.0 200 OK", "Content-Length: 3"], b"GET", Framing.LENGTH),
    ],
)
def test_where_the_content_ends(lines: list[str], method: bytes, framing: Framing) -> None:
    assert read_response(head(*lines), method).framing is framing


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (["HTTP/1.1 200 OK", "Content-Length: 0"], True),
        (["HTTP/1.1 200 OK", "Content-Length: 0", "Connection: close"], False),
        (["HTTP/1.0 200 OK", "Content-Length: 0"], False),
        (["HTTP/1.0 200 OK", "Content-Length: 0", "Connection: Keep-Alive"], True),
        (["HTTP/1.1 200 OK"], False),
        (["HTTP/1.1 200 OK", "Content-Length: 0", "Transfer-Encoding: chunked"], False),
    ],
)
def test_whether_the_connection_may_be_used_again(lines: list[str], keep_alive: bool) -> None:
    assert read_response(head(*lines), b"GET").keep_alive is keep_alive


def test_the_client_gets_the_fields_but_those_of_one_connection() -> None:
    response = read_response(
        head("HTTP/1.0 200 Fine", "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "ETag: a", "A: b"),
        b"GET",
    )
    assert response.head == b"HTTP/1.1 200 Fine\r\nETag: a\r\nA: b"


def test_a_length_beside_chunks_does_not_reach_the_client() -> None:
    response = read_response(head("HTTP/1.1 200 OK", "Content-Length: 3", "Transfer-Encoding: chunked"), b"GET")
    assert response.head == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HELLO",
        b"HTTP/2 200",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 099 Low",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\n: no name",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded",
        b"HTTP/1.1 200 OK\r\nA : b",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        read_response(raw, b"GET")


def chunked(parts: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return framed + b"0\r\n" + trailer + b"\r\n"


@given(
    parts=st.lists(st.binary(min_size=1, max_size=50), max_size=6),
    cuts=st.lists(st.integers(0, 500), max_size=8),
    rest=st.binary(max_size=10),
    trailer=st.sampled_from([b"", b"A: b\r\n"]),
)
def test_the_end_of_chunks_is_found_however_they_arrive(
    parts: list[bytes], cuts: list[int], rest: bytes, trailer: bytes
) -> None:
    content = chunked(parts, trailer=trailer)
    stream = content + rest
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks, payload, taken = Chunks(), b"", 0
    for begin, end in itertools.pairwise(edges):
        if not chunks.done:
            used, found = chunks.feed(stream[begin:end])
            taken += used
            payload += b"".join(found)
    assert chunks.done
    assert taken == len(content)
    assert payload == b"".join(parts)


@pytest.mark.parametrize(
    "raw",
    [
        b"x\r\n",
        b"-1\r\n",
        b"\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"0x3\r\n",
        b"f" * 16 + b"\r\n",
        b"1;" + b"a" * 5000,
    ],
)
def test_chunks_that_are_none_are_refused(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        Chunks().feed(raw)

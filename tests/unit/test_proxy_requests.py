"""What the proxy makes of a request's head."""

import pytest

from norn.adapters.local.proxy.requests import Header, Request, RequestRefused, own_answer, read_request

HOST = (b"Host", b"shop.example")


def read(
    *headers: Header, method: bytes = b"GET", target: bytes = b"/x?y=1", version: str = "1.1", keep_alive: bool = True
) -> Request:
    return read_request(
        method, target, version, list(headers), keep_alive=keep_alive, client=b"10.1.2.3", address=b"127.0.0.1:8080"
    )


def fields(request: Request) -> dict[bytes, list[bytes]]:
    """Names in lower case with all their values."""
    found: dict[bytes, list[bytes]] = {}
    for line in request.head.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b": ")
        found.setdefault(name.lower(), []).append(value)
    return found


def test_the_app_gets_the_request_line_and_the_fields_as_they_came() -> None:
    request = read(HOST, (b"Accept", b"*/*"), (b"X-Twice", b"1"), (b"X-Twice", b"2"))
    assert request.head.startswith(b"GET /x?y=1 HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n")
    assert fields(request)[b"x-twice"] == [b"1", b"2"]
    assert request.head.endswith(b"\r\n\r\n")


def test_the_app_is_told_who_asked_for_what() -> None:
    found = fields(read(HOST))
    assert found[b"x-forwarded-for"] == [b"10.1.2.3"]
    assert found[b"x-forwarded-proto"] == [b"http"]
    assert found[b"x-forwarded-host"] == [b"shop.example"]


def test_what_an_outer_proxy_said_is_kept_and_added_to() -> None:
    found = fields(
        read(
            HOST,
            (b"X-Forwarded-For", b"203.0.113.9"),
            (b"x-forwarded-for", b"198.51.100.1"),
            (b"X-Forwarded-Proto", b"https"),
            (b"X-Forwarded-Host", b"www.example.com"),
        )
    )
    assert found[b"x-forwarded-for"] == [b"203.0.113.9, 198.51.100.1, 10.1.2.3"]
    assert found[b"x-forwarded-proto"] == [b"https"]
    assert found[b"x-forwarded-host"] == [b"www.example.com"]


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Upgrade", b"Trailer", b"Proxy", b"HTTP2-Settings"],
)
def test_fields_of_one_connection_do_not_reach_the_app(name: bytes) -> None:
    assert name.lower() not in fields(read(HOST, (name, b"x")))


def test_fields_that_connection_names_do_not_reach_the_app() -> None:
    found = fields(read(HOST, (b"Connection", b"close, X-Secret"), (b"X-Secret", b"1"), (b"X-Other", b"2")))
    assert b"x-secret" not in found
    assert found[b"x-other"] == [b"2"]


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (b"a=1; norn-session=s3cret; b=2", [b"a=1; b=2"]),
        (b'norn-session=s3cret; b="x y";c==', [b'b="x y";c==']),
        (b"a=1; __Host-norn-session=s3cret", [b"a=1"]),
        (b"norn-session=s3cret;norn-session=s3cret ;__Host-norn-session=s3cret", []),
        (b"norn-session", []),
        (b"my-norn-session=1;  norn-sessions=2", [b"my-norn-session=1;  norn-sessions=2"]),
        (b" a = 1 ;b", [b" a = 1 ;b"]),
    ],
)
@pytest.mark.parametrize("name", [b"Cookie", b"cookie"])
def test_the_session_of_norns_pages_does_not_reach_the_app_and_other_cookies_do(
    name: bytes, sent: bytes, passed_on: list[bytes]
) -> None:
    request = read(HOST, (name, sent), (b"Accept", b"*/*"))
    assert fields(request).get(b"cookie", []) == passed_on
    assert b"s3cret" not in request.head


def test_connection_cannot_take_host_or_length_away() -> None:
    found = fields(read(HOST, (b"Connection", b"host, content-length"), (b"Content-Length", b"3"), method=b"POST"))
    assert found[b"host"] == [b"shop.example"]
    assert found[b"content-length"] == [b"3"]


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"content_length", b"Transfer_Encoding", b"X-Forwarded_Host"])
def test_a_field_that_cgi_takes_for_one_of_the_proxys_does_not_reach_the_app(name: bytes) -> None:
    assert name.lower() not in fields(read(HOST, (name, b"x")))


def test_an_underscore_elsewhere_is_let_through() -> None:
    assert fields(read(HOST, (b"my_field", b"1")))[b"my_field"] == [b"1"]


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"http://shop.example/a?b", b"GET /a?b HTTP/1.1"),
        (b"http://shop.example", b"GET / HTTP/1.1"),
        (b"HTTPS://shop.example/", b"GET / HTTP/1.1"),
        (b"//shop.example/a", b"GET //shop.example/a HTTP/1.1"),
    ],
)
def test_an_absolute_target_becomes_a_path(target: bytes, sent: bytes) -> None:
    assert read(HOST, target=target).head.split(b"\r\n")[0] == sent


def test_the_host_of_an_absolute_target_counts() -> None:
    assert fields(read((b"Host", b"other"), target=b"http://shop.example/"))[b"host"] == [b"shop.example"]


def test_a_client_of_http_1_0_may_leave_host_out() -> None:
    assert fields(read(version="1.0"))[b"host"] == [b"127.0.0.1:8080"]


def test_options_may_ask_for_the_server_itself() -> None:
    assert read(HOST, method=b"OPTIONS", target=b"*").head.startswith(b"OPTIONS * HTTP/1.1")


CHUNKED = (b"Transfer-Encoding", b"chunked")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 400),
        ([HOST, HOST], 400),
        ([(b"Host", b"a b")], 400),
        ([(b"Host", b"a/b")], 400),
        ([(b"Host", b"user@a")], 400),
        ([HOST, CHUNKED, (b"Content-Length", b"3")], 400),
        ([HOST, (b"Content-Length", b"3"), (b"Content-Length", b"3")], 400),
        ([HOST, (b"Content-Length", b"3, 3")], 400),
        ([HOST, (b"Content-Length", b"+3")], 400),
        ([HOST, (b"Content-Length", b"0x3")], 400),
        ([HOST, (b"Content-Length", b"")], 400),
        ([HOST, (b"Transfer-Encoding", b"gzip, chunked")], 501),
        ([HOST, CHUNKED, CHUNKED], 501),
        ([HOST, (b"Transfer-Encoding", b"xchunked")], 501),
        ([HOST, (b"Transfer-Encoding", b"identity")], 501),
    ],
)
def test_a_head_that_two_programs_could_read_in_two_ways_is_refused(headers: list[Header], status: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        read(*headers, method=b"POST")
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("method", "target", "version", "status"),
    [
        (b"CONNECT", b"a:1", "1.1", 405),
        (b"GET", b"x", "1.1", 400),
        (b"GET", b"*", "1.1", 400),
        (b"GET", b"ftp://a/", "1.1", 400),
        (b"GET", b"http://[/", "1.1", 400),
        (b"GET", b"http://u@a/", "1.1", 400),
        (b"GET", b"/", "2.0", 505),
        (b"GET", b"/", "0.9", 505),
    ],
)
def test_what_is_not_for_this_server_is_refused(method: bytes, target: bytes, version: str, status: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        read(HOST, method=method, target=target, version=version)
    assert refused.value.status == status


def test_chunks_from_http_1_0_are_refused() -> None:
    with pytest.raises(RequestRefused):
        read(HOST, CHUNKED, method=b"POST", version="1.0")


@pytest.mark.parametrize(
    ("headers", "method", "replayable"),
    [
        ([], b"GET", True),
        ([], b"HEAD", True),
        ([], b"DELETE", True),
        ([], b"POST", False),
        ([], b"PATCH", False),
        ([(b"Content-Length", b"0")], b"PUT", True),
        ([(b"Content-Length", b"1")], b"PUT", False),
        ([CHUNKED], b"GET", False),
        ([(b"Connection", b"upgrade"), (b"Upgrade", b"websocket")], b"GET", False),
    ],
)
def test_only_idempotent_requests_without_content_may_be_sent_twice(
    headers: list[Header], method: bytes, replayable: bool
) -> None:
    assert read(HOST, *headers, method=method).replayable is replayable


@pytest.mark.parametrize(
    ("headers", "version", "upgrade"),
    [
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], "1.1", True),
        ([(b"Connection", b"keep-alive, upgrade"), (b"Upgrade", b"websocket")], "1.1", True),
        ([(b"Upgrade", b"websocket")], "1.1", False),
        ([(b"Connection", b"upgrade")], "1.1", False),
        ([(b"Connection", b"upgrade"), (b"Upgrade", b"websocket")], "1.0", False),
        ([(b"Connection", b"upgrade, http2-settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"x")], "1.1", False),
        ([(b"Connection", b"upgrade"), (b"Upgrade", b"websocket"), (b"Content-Length", b"3")], "1.1", False),
    ],
)
def test_which_requests_may_switch_protocols(headers: list[Header], version: str, upgrade: bool) -> None:
    request = read(HOST, *headers, version=version)
    assert request.upgrade is upgrade
    assert (b"upgrade" in fields(request)) is upgrade


def test_an_answer_of_the_proxy_says_how_long_it_is() -> None:
    head, _, body = own_answer(503, "No process of the app is running.", close=False).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Retry-After" in head


def test_an_answer_of_the_proxy_to_head_has_no_content() -> None:
    assert own_answer(502, "x", close=True, head_only=True).endswith(b"\r\n\r\n")

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest

from ponder.client import Client, ResultLine
from ponder.errors import Conflict, Forbidden, InvalidInput, NotFound, PonderError, Unauthorized, Unreachable
from ponder.wire import Wire

Handler = Callable[[httpx2.Request], httpx2.Response]


def client_of(handler: Handler, patience_s: float = 10.0) -> Client:
    """A wire whose clock advances only by its own sleep."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    wire = Wire(
        "http://ponder",
        "pk-x",
        patience_s=patience_s,
        timeout_s=5,
        transport=httpx2.MockTransport(handler),
        sleep=sleep,
        clock=lambda: now[0],
    )
    return Client(wire)


def answers(*responses: httpx2.Response | Exception) -> tuple[Handler, list[httpx2.Request]]:
    seen: list[httpx2.Request] = []
    queue = list(responses)

    def handler(request: httpx2.Request) -> httpx2.Response:
        request.read()
        seen.append(request)
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler, seen


def test_the_key_goes_with_every_request() -> None:
    handler, seen = answers(httpx2.Response(200, json={"id": "batch_1"}))
    assert client_of(handler).batch("batch_1") == {"id": "batch_1"}
    assert seen[0].headers["Authorization"] == "Bearer pk-x"
    assert seen[0].url == "http://ponder/v1/batches/batch_1"


def test_a_submission_whose_answer_was_lost_is_repeated_with_the_same_idempotency_key() -> None:
    handler, seen = answers(
        httpx2.ReadTimeout("lost"), httpx2.Response(503), httpx2.Response(200, json={"id": "batch_1"})
    )
    batch = client_of(handler).submit("file-1", options={"strict": True})
    assert batch["id"] == "batch_1"
    assert len({request.headers["Idempotency-Key"] for request in seen}) == 1
    assert json.loads(seen[2].content)["ponder"] == {"strict": True}


def test_a_request_that_must_not_be_repeated_is_sent_once_if_it_may_have_arrived() -> None:
    handler, seen = answers(httpx2.ReadTimeout("lost"), httpx2.Response(200, json={}))
    with pytest.raises(Unreachable):
        client_of(handler).create_tenant("a")
    assert len(seen) == 1


def test_a_request_that_never_arrived_is_always_repeated() -> None:
    handler, seen = answers(httpx2.ConnectError("refused"), httpx2.Response(200, json={"id": "tenant_1"}))
    assert client_of(handler).create_tenant("a")["id"] == "tenant_1"
    assert len(seen) == 2


def test_patience_ends_and_the_error_says_how_to_start_the_server() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with pytest.raises(Unreachable, match="ponder up"):
        client_of(refuse, patience_s=1).models()


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": "7"}), httpx2.Response(200, json={"data": []}))
    assert client_of(handler).models() == []
    handler, seen = answers(httpx2.Response(429, headers={"Retry-After": "70"}))
    with pytest.raises(Unreachable):
        client_of(handler).models()
    assert len(seen) == 1


def test_an_upload_is_opened_again_for_every_try() -> None:
    handler, seen = answers(httpx2.Response(502), httpx2.Response(200, json={"id": "file-1"}))

    def lines() -> Iterator[bytes]:
        yield from (b"line %d\n" % number for number in range(20_000))

    assert client_of(handler).upload(lines, "a.jsonl")["id"] == "file-1"
    for request in seen:
        assert request.content.count(b"line ") == 20_000
        assert b'filename="a.jsonl"' in request.content


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidInput),
        (500, Unreachable),
    ],
)
def test_openai_errors_become_ponder_errors(status: int, kind: type[PonderError]) -> None:
    error = {"message": "no such thing", "type": "x", "param": "body.n", "code": "c"}
    handler, _ = answers(httpx2.Response(status, json={"error": error}))
    with pytest.raises(kind, match="no such thing") as caught:
        client_of(handler).batch("b")
    if isinstance(caught.value, InvalidInput):
        assert (caught.value.param, caught.value.code) == ("body.n", "c")


def test_the_answer_of_another_server_is_not_mistaken_for_ponders() -> None:
    handler, _ = answers(httpx2.Response(200, text="<html>welcome</html>"))
    with pytest.raises(Unreachable, match="not like a ponder API"):
        client_of(handler).batch("b")


def test_lists_are_read_page_by_page_up_to_the_limit() -> None:
    ids = [f"batch_{number}" for number in range(250)]

    def page(request: httpx2.Request) -> httpx2.Response:
        after = request.url.params.get("after")
        start = ids.index(after) + 1 if after else 0
        stop = start + int(request.url.params["limit"])
        return httpx2.Response(200, json={"data": [{"id": i} for i in ids[start:stop]], "has_more": stop < len(ids)})

    assert [batch["id"] for batch in client_of(page).batches()] == ids
    assert [batch["id"] for batch in client_of(page).batches(120)] == ids[:120]


def test_a_download_that_breaks_in_the_middle_is_unreachable() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise httpx2.ReadError("gone")

    handler, _ = answers(httpx2.Response(200, content=broken()))
    with pytest.raises(Unreachable), client_of(handler).download("file-1") as pieces:
        list(pieces)


@pytest.mark.parametrize("address", ["ponder.example", "http://ponder:port"])
def test_an_invalid_address_is_the_users_error(address: str) -> None:
    with pytest.raises(InvalidInput, match="http"):
        Client.of(address, "pk-x").models()


def _line(number: int) -> bytes:
    return json.dumps({"cursor": f"c{number}", "error": None}).encode() + b"\n"


def _broken(*pieces: bytes) -> httpx2.Response:
    def content() -> Iterator[bytes]:
        yield from pieces
        raise httpx2.ReadError("reset")

    return httpx2.Response(200, content=content())


def _end(*lines: bytes, is_last: bool = True) -> httpx2.Response:
    return httpx2.Response(200, content=b"".join(lines), headers={"Ponder-Complete": str(is_last).lower()})


def test_results_are_followed_over_broken_connections_without_a_gap_or_a_duplicate_line() -> None:
    handler, seen = answers(
        _broken(_line(1), b"\n", _line(2)[:5], _line(2)[5:], _line(3)[:7]),
        httpx2.ConnectError("refused"),
        _broken(),
        httpx2.Response(200, content=_line(3)),  # a proxy ended it
        _end(_line(4), is_last=False),
        httpx2.Response(200, content=b"\n" + _line(5)),
        _end(),
    )
    lines = list(client_of(handler).follow_results("batch_1", after="c0"))
    assert lines == [ResultLine(_line(number), f"c{number}", is_error=False) for number in range(1, 6)]
    asked = [dict(request.url.params) for request in seen]
    assert asked[0] == {"follow": "true", "after": "c0"}
    assert [query["after"] for query in asked] == ["c0", "c2", "c2", "c2", "c3", "c4", "c5"]
    assert asked[-1] == {"limit": "1000", "after": "c5"}


def test_a_stream_that_always_breaks_at_once_is_given_up() -> None:
    def handler(_request: httpx2.Request) -> httpx2.Response:
        return _broken()

    with pytest.raises(Unreachable, match="reset"):
        list(client_of(handler).follow_results("batch_1"))

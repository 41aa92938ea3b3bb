"""Every request to every route is answered or refused in OpenAI's form, never with an internal error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ponder.api.server import create_app
from ponder.settings import Settings

SPECIFICATION = create_app(None, "", Settings()).openapi()  # type: ignore[arg-type]
UNTOUCHED = {"/healthz", "/readyz", "/metrics"}
KINDS = ("file-", "batch_", "job_", "key_", "tenant_", "inc_", "")

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
identifiers = st.builds(
    lambda kind, digits: kind + digits,
    st.sampled_from(KINDS),
    st.text("0123456789abcdef", max_size=40) | st.text("0123456789", min_size=1, max_size=40) | any_text,
)
values = identifiers | any_text | st.integers().map(str) | st.sampled_from(["", "\0", "0", "-1", "true", "all"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | identifiers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Call:
    method: str
    route: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes | None

    @property
    def url(self) -> str:
        return self.route.format(**{name: quote(value, safe="") for name, value in self.path.items()})


def schema_of(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return SPECIFICATION["components"]["schemas"].get(name, {}) if name else {}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    routes = [
        (path, method) for path, item in SPECIFICATION["paths"].items() for method in item if path not in UNTOUCHED
    ]
    route, method = draw(st.sampled_from(routes))
    operation = SPECIFICATION["paths"][route][method]
    given_values: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            given_values["path"][parameter["name"]] = draw(values.filter(lambda value: value not in ("", ".", "..")))
        elif draw(st.booleans()):
            value = draw(values)
            if parameter["in"] == "header":
                value = "".join(char for char in value if "!" <= char <= "\xff" and char != "\x7f") or "x"
            given_values[parameter["in"]][parameter["name"]] = value
    body = None
    properties = schema_of(operation).get("properties", {})
    if "requestBody" in operation:
        fields = st.fixed_dictionaries({}, optional=dict.fromkeys([*properties, "other"], documents))
        body = draw((fields | documents).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20))
    headers = given_values["header"] | ({"Content-Type": "application/json"} if body is not None else {})
    return Call(method.upper(), route, given_values["path"], given_values["query"], headers, body)


def send(http: httpx2.Client, call: Call) -> httpx2.Response:
    headers = {name: value.encode("latin-1") for name, value in call.headers.items()}
    return http.request(call.method, call.url, params=call.query, headers=headers, content=call.body)  # type: ignore[arg-type]


def refusal(answer: httpx2.Response) -> dict[str, Any]:
    """Returns OpenAI's error object, after checking that the answer has nothing else."""
    document = answer.json()
    assert list(document) == ["error"], answer.text
    assert set(document["error"]) == {"message", "type", "param", "code"}, answer.text
    assert isinstance(document["error"]["message"], str)
    assert isinstance(document["error"]["code"], str), answer.text
    return dict(document["error"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls())
def test_every_call_is_answered_or_refused_in_openais_form(http: httpx2.Client, call: Call) -> None:
    answer = send(http, call)
    assert answer.status_code < 500, (call, answer.text)
    if answer.status_code >= 400:
        error = refusal(answer)
        if error["message"].endswith("is not a route of ponder") or answer.status_code == 405:
            return  # an encoded slash in an id leads elsewhere
        sent = {*call.path, *call.query, *call.headers}
        if answer.status_code == 404:
            assert error["param"] in sent | {"input_file_id", "tenant"}, (call, answer.text)
        elif error["param"] is None and answer.status_code != 409:  # a conflict is no fault of the request
            # The body as a whole is missing, not JSON or not an object.
            assert call.body is not None, (call, answer.text)


FORM = "multipart/form-data"
PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'Content-Disposition: form-data; name="file"; filename="\xff.jsonl"\r\n\r\n{}\r\n'
BROKEN_HEADERS = (b"Content-Disposition\r\n", b'Content-Disposition: x; name="p\0"\r\n', b": \r\n", b"\xff\xfe")
pieces = st.sampled_from([b"--x\r\n", b"--x--\r\n", b"\r\n", PURPOSE, FILE, *BROKEN_HEADERS]) | st.binary(max_size=9)
kinds = st.sampled_from([f"{FORM}; boundary=x{charset}" for charset in ("", "; charset=zip", "; charset=undefined")])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds | st.sampled_from([FORM, f"{FORM}; boundary=", "text/plain"]), st.lists(pieces, max_size=12).map(b"".join))
@example(f"{FORM}; boundary=x; charset=undefined", b"--x\r\n" + PURPOSE + b"--x--\r\n")
def test_every_upload_is_kept_or_refused(http: httpx2.Client, kind: str, body: bytes) -> None:
    answer = http.post("/v1/files", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (200, 400), (kind, body, answer.text)
    if answer.status_code == 400:
        assert refusal(answer)["param"] is not None


LISTS = {
    path: operation["get"]
    for path, operation in SPECIFICATION["paths"].items()
    if any(parameter["name"] == "after" for parameter in operation.get("get", {}).get("parameters", ()))
}


def batch_of(http: httpx2.Client, submitted: Callable[..., Any], line: Callable[..., Any]) -> str:
    batches = http.get("/v1/batches").json()["data"]
    return str(batches[0]["id"] if batches else submitted([line()]).id)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(LISTS)), values.filter(bool))
@example("/v1/batches/{batch_id}/jobs", "job_abc")
@example("/v1/batches/{batch_id}/jobs", "job_" + "9" * 19)
@example("/v1/batches/{batch_id}/jobs", "job_123456")
@example("/v1/keys", "key_0123456789abcdef")
@example("/v1/tenants", "tenant_0123456789abcdef")
def test_an_invalid_cursor_is_refused_by_name(
    http: httpx2.Client, submitted: Callable[..., Any], line: Callable[..., Any], path: str, cursor: str
) -> None:
    url = path
    if "{batch_id}" in path:
        url = path.format(batch_id=batch_of(http, submitted, line))
    needs_batch = any(one["name"] == "batch_id" and one["in"] == "query" for one in LISTS[path]["parameters"])
    params = {"batch_id": batch_of(http, submitted, line)} if needs_batch else {}
    answer = http.get(url, params=params | {"after": cursor})
    assert answer.status_code in (400, 404), answer.text
    assert refusal(answer)["param"] == "after"


def test_another_tenants_cursor_is_refused_like_an_unknown_one(
    http: httpx2.Client, stranger: httpx2.Client, submitted: Callable[..., Any], line: Callable[..., Any]
) -> None:
    mine = submitted([line()])
    [key] = [key for key in http.get("/v1/keys").json()["data"] if key["name"] == "test"]
    for path, cursor in (
        ("/v1/keys", key["id"]),
        ("/v1/batches", mine.id),
        ("/v1/files", mine.input_file_id),
    ):
        assert http.get(path, params={"after": cursor}).status_code == 200
        answer = stranger.get(path, params={"after": cursor})
        assert (answer.status_code, refusal(answer)["param"]) == (404, "after")


def test_files_can_be_deleted_while_they_are_listed(http: httpx2.Client) -> None:
    for number in range(5):
        form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": (f"{number}.jsonl", b"{}")}}
        http.post("/v1/files", **form).raise_for_status()
    deleted, after = [], {}
    while True:
        page = http.get("/v1/files", params={"limit": 2} | after).raise_for_status().json()
        for file in page["data"]:
            http.delete(f"/v1/files/{file['id']}").raise_for_status()
            deleted.append(file["filename"])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert deleted == [f"{number}.jsonl" for number in reversed(range(5))]
    assert http.get("/v1/files").json()["data"] == []

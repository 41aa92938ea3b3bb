"""A batch is made in a browser of whatever file people have, and a form that is sent twice makes one batch."""

from __future__ import annotations

import gzip
import html
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from batch_form import ROWS, form_of, lines_of, token_of, uploaded
from sqlalchemy import Engine
from world import World

from ponder.console.draft import FORM, Draft
from ponder.console.spec_form import cards, strategy_groups
from ponder.domain.strategy import STRATEGY_SPECS
from ponder.errors import InvalidInput
from ponder.jobs.validation.validate import validate
from ponder.settings import Settings


@pytest.fixture
def world(engine: Engine) -> World:
    world = World(engine)
    world.worker()
    return world


@pytest.fixture
def model(world: World) -> str:
    [row] = world.sql("SELECT name FROM models")
    return str(row.name)


def batch_line(custom_id: str, **body: Any) -> dict[str, Any]:
    asked = {"model": "demo", "messages": [{"role": "user", "content": "Compute 3 + 4."}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked}


def test_a_data_set_becomes_a_batch_with_the_fields_that_were_recognised(
    browser: httpx2.Client, world: World, model: str, engine: Engine
) -> None:
    page = browser.get(uploaded(browser, lines_of(ROWS)))
    form = form_of(page.text)
    assert (form["prompt"], form["answer"], form["level"], form["model"]) == ("question", "answer", "level", model)
    sent = browser.post("/new", data=form | {"strategy": "best_of_n", "strategy.best_of_n.n": "4"})
    assert sent.status_code == 303, sent.text
    batch_id = sent.headers["Location"].removeprefix("/batches/")
    validate(engine, batch_id)
    jobs = world.sql("SELECT request, level, strategy FROM jobs WHERE batch_id = :id ORDER BY line", id=batch_id)
    assert len(jobs) == len(ROWS)
    assert jobs[3].request["messages"][-1]["content"] == "Compute 3 + 4."
    assert (jobs[3].request["reference"], jobs[3].level, jobs[3].strategy) == ("7", "easy", "best_of_n")
    assert jobs[3].request["strategy"]["n"] == 4
    files = world.sql("SELECT filename FROM files WHERE deleted_at IS NULL AND kind = 'input'")
    assert [file.filename for file in files] == ["problems.jsonl"]  # what was uploaded is not kept twice


def test_a_data_set_can_be_answered_as_the_continuation_of_a_text(
    browser: httpx2.Client, world: World, model: str, engine: Engine
) -> None:
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text) | {"endpoint": "/v1/completions"}
    sent = browser.post("/new", data=form)
    batch_id = sent.headers["Location"].removeprefix("/batches/")
    validate(engine, batch_id)
    [batch] = world.sql("SELECT endpoint FROM batches WHERE id = :id", id=batch_id)
    jobs = world.sql("SELECT request FROM jobs WHERE batch_id = :id ORDER BY line", id=batch_id)
    assert (batch.endpoint, len(jobs)) == ("/v1/completions", len(ROWS))
    assert jobs[3].request["prompt"] == "Compute 3 + 4."


def test_batch_lines_are_submitted_as_they_are(
    browser: httpx2.Client, world: World, model: str, engine: Engine
) -> None:
    where = uploaded(browser, lines_of([batch_line("a", model=model), batch_line("b", model=model)]))
    sent = browser.post("/new", data=form_of(browser.get(where).text) | {"metadata": "project=olympiad"})
    batch_id = sent.headers["Location"].removeprefix("/batches/")
    [batch] = world.sql("SELECT input_file_id, metadata FROM batches WHERE id = :id", id=batch_id)
    assert where.endswith(batch.input_file_id)
    assert batch.metadata == {"project": "olympiad"}
    validate(engine, batch_id)
    assert len(world.jobs(batch_id)) == 2


def test_batch_lines_that_are_overridden_stay_for_other_batches(
    browser: httpx2.Client, world: World, model: str
) -> None:
    where = uploaded(browser, lines_of([batch_line("a", model=model)]))
    sent = browser.post("/new", data=form_of(browser.get(where).text) | {"max_tokens": "16"})
    assert sent.status_code == 303, sent.text
    [batch] = world.sql("SELECT input_file_id FROM batches")
    assert not where.endswith(batch.input_file_id)
    assert browser.get(where).status_code == 200


def test_a_submission_that_was_refused_can_be_sent_again(browser: httpx2.Client, world: World, model: str) -> None:
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text)
    refused = browser.post("/new", data=form | {"completion_window": "90d"})
    assert "completion_window" in refused.text
    assert world.sql("SELECT id FROM batches") == []
    assert browser.post("/new", data=form).status_code == 303


def test_a_form_that_is_sent_twice_at_once_makes_one_batch(browser: httpx2.Client, world: World) -> None:
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text)
    answers: list[httpx2.Response] = []

    def send() -> None:
        with httpx2.Client(base_url=browser.base_url, cookies=browser.cookies, timeout=60) as client:
            answers.append(client.post("/new", data=form))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [303, 303], [answer.text for answer in answers]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(world.sql("SELECT id FROM batches")) == 1
    assert browser.post("/new", data=form).headers["Location"] == answers[0].headers["Location"]


def test_the_check_shows_an_estimate_and_what_the_validator_would_refuse(
    browser: httpx2.Client, world: World, model: str
) -> None:
    lines = [batch_line("a", model=model), batch_line("a", model=model), batch_line("c", model=model, max_tokens=-1)]
    where = uploaded(browser, lines_of(lines) + b"\n{broken\n")
    told = browser.post("/new/check", data=form_of(browser.get(where).text))
    text = html.unescape(re.sub(r"<[^>]+>", " ", told.text))
    assert "3 of all 4 lines would be refused" in " ".join(text.split())
    assert "the custom_id was already used in line 1" in text
    assert "body.max_tokens" in text
    assert "Line 4" in text
    assert "the line is not JSON" in text
    assert "Estimate" in text
    assert "Generated tokens" in text
    assert world.sql("SELECT id FROM batches") == []


@pytest.mark.parametrize("wrong", ["1e999", "NaN", "-Infinity", "1_000", "9" * 400, "many", "١٢"])
@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("max_tokens", "max_tokens"),
        ("temperature", "temperature"),
        ("budget.tokens", "ponder.budget.tokens"),
        ("batch_budget.dollars", "ponder.batch_budget.dollars"),
        ("max_rounds", "ponder.max_rounds"),
        ("pilot", "ponder.pilot"),
        ("keep_days", "keep_days"),
        ("strategy.rebase.temperature", "ponder.strategy.temperature"),
    ],
)
def test_what_is_no_number_is_refused_where_it_was_typed(field: str, param: str, wrong: str) -> None:
    fields = {"prompt": "question", "model": "demo", "strategy": "rebase", field: wrong}
    with pytest.raises(InvalidInput, match="write a number in digits") as caught:
        (Draft(fields).reading(), Draft(fields).submission("file-0"))
    assert caught.value.param == param


def test_more_days_than_can_be_counted_are_refused() -> None:
    with pytest.raises(InvalidInput, match="keep_days"):
        Draft({"keep_days": "1e305"}).submission("file-0")


def test_a_name_is_metadata_unless_the_metadata_has_another() -> None:
    assert json.loads(Draft({"name": " Olympiad ", "metadata": "a=b"}).submission("file-0"))["metadata"] == {
        "a": "b",
        "name": "Olympiad",
    }
    with pytest.raises(InvalidInput, match="another name"):
        Draft({"name": "Olympiad", "metadata": "name=other"}).submission("file-0")


def test_lines_that_are_overridden_are_made_anew_unasked_only_if_they_are_small(
    browser: httpx2.Client, world: World, model: str
) -> None:
    lines = [batch_line(str(number), model=model, user="x" * 60_000) for number in range(80)]
    form = form_of(browser.get(uploaded(browser, lines_of(lines))).text)
    unasked = form | {"automatic": "yes"}
    assert "would be refused" in browser.post("/new/check", data=unasked).text
    assert "data-is-large" in browser.post("/new/check", data=unasked | {"n": "2"}).text
    assert "data-is-large" not in browser.post("/new/check", data=form | {"n": "2"}).text


def test_a_file_that_batches_use_says_so_and_stands_below_the_others(
    browser: httpx2.Client, world: World, model: str
) -> None:
    free = uploaded(browser, lines_of(ROWS), "free.jsonl")
    used = uploaded(browser, lines_of([batch_line("a", model=model)]), "used.jsonl")
    for _ in range(2):
        browser.post("/new", data=form_of(browser.get(used).text))
    page = " ".join(re.sub(r"<[^>]+>", " ", browser.get("/new").text).split())
    assert re.search(r"free\.jsonl .* no batch yet .* used\.jsonl .* 2 batches", page), page
    assert free != used


def test_a_check_of_a_data_set_leaves_no_file_behind(browser: httpx2.Client, world: World, model: str) -> None:
    form = form_of(browser.get(uploaded(browser, lines_of([*ROWS, {"answer": "5"}]))).text)
    told = browser.post("/new/check", data=form)
    assert "21" in told.text
    assert "it has no field &#39;question&#39;" in told.text
    assert "Generated tokens" in told.text
    assert len(world.sql("SELECT id FROM files WHERE deleted_at IS NULL")) == 1


def test_a_wrong_setting_names_its_field_and_submits_nothing(browser: httpx2.Client, world: World) -> None:
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text)
    wrong = form | {"strategy": "best_of_n", "strategy.best_of_n.n": "many"}
    told = browser.post("/new", data=wrong)
    assert told.status_code == 200
    assert 'data-param="ponder.strategy.n"' in told.text
    assert 'value="many"' in told.text  # what was typed is still there
    assert "no model" not in told.text
    assert 'data-param="prompt"' in browser.post("/new/check", data=form | {"prompt": ""}).text
    assert "KEY=VALUE is expected" in browser.post("/new/check", data=form | {"metadata": "nonsense"}).text
    assert world.sql("SELECT id FROM batches") == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", b"", "it has no rows"),
        ("picture.jsonl", bytes(range(256)) * 40, "cannot be read|is not"),
        ("latin.csv", "question,answer\nWie heißt er?,Jörg\n".encode("latin-1"), "it is not UTF-8, but Latin-1"),
        ("wrong.parquet", b"PAR1 no parquet", "it is not Parquet"),
        ("cut.jsonl.gz", gzip.compress(lines_of(ROWS), mtime=0)[:60], "ends too early|damaged"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(browser: httpx2.Client, name: str, content: bytes, said: str) -> None:
    page = browser.get(uploaded(browser, content, name))
    assert page.status_code == 200
    assert re.search(said, html.unescape(page.text))
    assert 'id="batch"' not in page.text


def test_a_row_with_broken_utf8_or_of_100_mb_costs_only_itself(
    browser: httpx2.Client, world: World, model: str
) -> None:
    long = b'{"question": "' + b"x" * 100_000_000 + b'"}'
    content = b'{"question": "fine"}\n{"question": "\xff"}\n' + long + b'\n{"question": "fine, too"}\n'
    where = uploaded(browser, content)
    assert "latin-1 under “Encoding” reads it" in browser.get(where).text
    page = browser.get(f"{where}&encoding=utf-8")
    assert "it is not UTF-8 (byte 0xFF)" in html.unescape(page.text)
    assert "it is longer than 8 MB" in page.text
    assert "fine, too" in page.text
    assert len(page.content) < 200_000


def test_the_remedy_of_a_file_is_in_the_words_of_the_form(browser: httpx2.Client, world: World) -> None:
    latin = browser.get(uploaded(browser, "frage\nWie heißt er?\n".encode("latin-1"), "a.csv")).text
    assert re.search("latin-1 under “Encoding” reads it", latin)
    page = browser.get(uploaded(browser, b"question,answer\nWas ist 3 + 4?,7\n", "b.csv")).text
    refused = html.unescape(browser.post("/new/check", data=form_of(page) | {"level": "schwer"}).text)
    assert "no row has the field 'schwer' of “Level”" in refused
    assert "--encoding" not in latin
    assert "--level" not in refused
    for name in (FORM.prompt, FORM.answer, FORM.id, FORM.level, FORM.encoding, FORM.model):
        assert f">{name.strip('“”')}</label>" in page


def test_a_csv_with_a_byte_order_mark_and_an_encoding_of_its_own_is_read(browser: httpx2.Client, world: World) -> None:
    page = browser.get(uploaded(browser, "\ufeffproblem,answer\nWas ist 3 + 4?,7\n".encode(), "a.csv"))
    assert form_of(page.text)["prompt"] == "problem"
    where = uploaded(browser, "problem,answer\nWie heißt er?,Jörg\n".encode("latin-1"), "b.csv")
    assert "Wie heißt er?" in browser.get(f"{where}&encoding=latin-1").text


def test_columns_that_nobody_recognises_are_chosen_by_hand(browser: httpx2.Client, world: World) -> None:
    form = form_of(browser.get(uploaded(browser, b"frage,loesung\nWas ist 3 + 4?,7\n", "a.csv")).text)
    assert form["prompt"] == ""
    assert browser.post("/new", data=form | {"prompt": "frage", "answer": "loesung"}).status_code == 303


@pytest.mark.parametrize(
    ("pasted", "said", "field"),
    [
        ('{"problem": "Compute 3 + 4."}', {}, "problem"),
        ('[{"prompt": "Compute 3 + 4."}]', {}, "prompt"),
        ("Compute 3 + 4.\n\nCompute 5 + 6.\n", {}, "problem"),
        ("[1, 2] is a list. Compute 3 + 4.", {}, "problem"),
        ('{broken\n{"question": "Compute 3 + 4."}', {}, "question"),
        ("question,answer\nCompute 3 + 4.,7\n", {"pasted_as": "csv"}, "question"),
    ],
)
def test_pasted_lines_are_a_file(browser: httpx2.Client, pasted: str, said: dict[str, str], field: str) -> None:
    fields = {"csrf_token": token_of(browser), "lines": pasted} | said
    sent = browser.post("/new/file", data=fields, files={"file": ("", b"")})
    page = browser.get(sent.headers["Location"])
    assert form_of(page.text)["prompt"] == field
    assert "Compute 3 + 4." in page.text


def test_an_upload_needs_a_file_of_a_known_kind_and_its_token(browser: httpx2.Client, world: World) -> None:
    token = token_of(browser)
    wrong = browser.post("/new/file", data={"csrf_token": token}, files={"file": ("sheet.xlsx", b"PK")})
    assert (wrong.status_code, "supported are .jsonl" in wrong.text) == (400, True)
    assert browser.post("/new/file", data={"csrf_token": token}, files={"file": ("", b"")}).status_code == 400
    assert browser.post("/new/file", files={"file": ("a.jsonl", b"{}")}).status_code == 403
    foreign = {"csrf_token": token}
    headers = {"Origin": "https://elsewhere.example"}
    assert (
        browser.post("/new/file", data=foreign, files={"file": ("a.jsonl", b"{}")}, headers=headers).status_code == 403
    )
    assert world.sql("SELECT id FROM files") == []


def test_forms_without_a_token_change_nothing(browser: httpx2.Client, world: World) -> None:
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text) | {"csrf_token": "wrong"}
    assert [browser.post(path, data=form).status_code for path in ("/new", "/new/check", "/new/remove")] == [403] * 3
    assert len(world.sql("SELECT id FROM files")) == 1


def test_a_key_that_may_only_read_sees_why_it_makes_no_batch(
    browse: Callable[[str], httpx2.Client], new_key: Callable[..., str]
) -> None:
    reader = browse(new_key(role="read"))
    page = reader.get("/new")
    assert (page.status_code, "may only read" in page.text) == (403, True)
    token = re.search(r'X-CSRF-Token": "([0-9a-f]+)"', page.text)
    assert token is not None
    sent = reader.post("/new/file", data={"csrf_token": token[1]}, files={"file": ("a.jsonl", b"{}")})
    assert sent.status_code == 403


def test_nobody_sees_or_uses_another_tenants_upload(
    browser: httpx2.Client, browse: Callable[[str], httpx2.Client], new_key: Callable[..., str], world: World
) -> None:
    where = uploaded(browser, lines_of(ROWS))
    form = form_of(browser.get(where).text)
    stranger = browse(new_key("strangers"))
    form["csrf_token"] = token_of(stranger)
    assert stranger.get(where).status_code == 404
    assert stranger.post("/new", data=form).status_code == 404
    assert stranger.post("/new/check", data=form).status_code == 404
    header = {"X-CSRF-Token": form["csrf_token"]}
    assert stranger.post("/new/remove", data=form, headers=header).status_code == 404
    assert "problems.jsonl" not in stranger.get("/new").text
    assert world.sql("SELECT id FROM batches") == []


class TestStorage:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(max_stored_bytes=1_000)

    def test_an_upload_counts_as_those_of_the_api_do(
        self, browse: Callable[[str], httpx2.Client], new_key: Callable[..., str]
    ) -> None:
        tenant = browse(new_key("small"))
        fields = {"csrf_token": token_of(tenant)}
        sent = tenant.post("/new/file", data=fields, files={"file": ("a.jsonl", b"x" * 2_000)})
        assert (sent.status_code, "PONDER_MAX_STORED_BYTES" in sent.text) == (429, True)

    def test_a_data_set_whose_batch_has_no_room_says_so(
        self, browse: Callable[[str], httpx2.Client], new_key: Callable[..., str], world: World
    ) -> None:
        tenant = browse(new_key("small"))
        where = uploaded(tenant, gzip.compress(lines_of(ROWS), mtime=0), "problems.jsonl.gz")
        form = form_of(tenant.get(where).text)
        for path in ("/new", "/new/check"):
            sent = tenant.post(path, data=form)
            assert (sent.status_code, "PONDER_MAX_STORED_BYTES" in sent.text) == (429, True), path
        assert [file.filename for file in world.sql("SELECT filename FROM files")] == ["problems.jsonl.gz"]


@pytest.mark.parametrize(
    ("name", "content", "is_checked"),
    [
        ("text.jsonl", lines_of(ROWS), True),
        ("text.csv", b"problem,answer\nCompute 3 + 4.,7\n", True),
        ("text.jsonl.gz", gzip.compress(lines_of(ROWS), mtime=0), False),
        ("large.csv", b"problem,answer\n" + b"Compute 3 + 4.,7\n" * 300_000, False),
    ],
)
def test_only_small_texts_are_checked_before_somebody_asks(
    browser: httpx2.Client, world: World, name: str, content: bytes, *, is_checked: bool
) -> None:
    page = browser.get(uploaded(browser, content, name)).text
    assert ("data-automatic" in page) == is_checked


def test_a_short_text_that_makes_a_large_batch_is_checked_once_somebody_asks(
    browser: httpx2.Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.console.pages.new_batch._MOST_LINES_BYTES", 10_000)
    form = form_of(browser.get(uploaded(browser, lines_of(ROWS))).text) | {"system": "Think. " * 100}
    assert (
        "too large to be estimated after every change"
        in browser.post("/new/check", data=form | {"automatic": "1"}).text
    )
    assert "Generated tokens" in browser.post("/new/check", data=form).text


def test_every_strategy_is_in_a_group_with_a_title_its_use_and_its_cost() -> None:
    groups = strategy_groups(STRATEGY_SPECS)
    shown = [card for _, group in groups for card in group]
    assert sorted(card.name for card in shown) == sorted(STRATEGY_SPECS)
    assert len({card.title for card in shown}) == len(shown)
    assert all("_" not in card.title and card.use.endswith(".") and card.cost.endswith(".") for card in shown)
    assert [card.name for card in dict(groups)["One answer"]] == ["direct", "budget_forcing", "answer_probing"]
    assert all(group for _, group in groups)


def test_every_strategy_has_a_sentence_and_the_defaults_of_its_spec() -> None:
    shown = {card.name: card for card in cards(STRATEGY_SPECS)}
    assert shown.keys() == STRATEGY_SPECS.keys()
    assert all(card.sentence.endswith((".", ":")) and len(card.sentence) < 300 for card in shown.values())
    best = {one.name: one for one in shown["best_of_n"].parameters}
    assert (best["n"].default, best["n"].low, best["n"].high) == ("8", 1, 1024)
    assert (best["select"].default, "genselect" in best["select"].choices) == ("best", True)
    assert best["judge"].kind == "json"
    assert shown["mcts"].needs == "a reward model"
    assert shown["direct"].needs == ""
    assert {one.name: one.is_required for one in shown["cascade"].parameters}["stages"]

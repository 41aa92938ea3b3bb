from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ponder.errors import InvalidInput
from ponder.fleet.provider import Order, Pool, ProviderFailed
from ponder.fleet.providers.scripts import Command, Scripts

POOL = Pool("demo", "h200", "spot")
ORDER = Order("fleet-1", POOL, 3, "fleet-1", "i-0abc")


def command(folder: Path, body: str, *, timeout_s: float = 5.0) -> Command:
    script = folder / "script"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    line = f"{script} {{id}} --pool '{{model}} {{machine}} {{market}}' {{num_workers}} {{handle}}"
    return Command(Scripts.parse(line, line, str(script)), timeout_s=timeout_s)


def test_a_script_gets_the_order_in_its_words_and_as_json_and_names_what_it_started(tmp_path: Path) -> None:
    provider = command(tmp_path, f'echo "$@" >{tmp_path}/words; cat >{tmp_path}/json; echo \'{{"handle": "i-7"}}\'')
    assert provider.start(ORDER) == "i-7"
    assert (tmp_path / "words").read_text() == "fleet-1 --pool demo h200 spot 3 i-0abc\n"
    assert json.loads((tmp_path / "json").read_text()) == {
        "id": "fleet-1", "model": "demo", "machine": "h200", "market": "spot", "num_workers": 3, "handle": "i-0abc"
    }  # fmt: skip


def test_what_a_start_prints_need_not_be_json(tmp_path: Path) -> None:
    assert command(tmp_path, "echo launched").start(ORDER) is None
    assert command(tmp_path, "echo '[1]'").start(ORDER) is None


def test_a_script_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    provider = command(tmp_path, f"(sleep 2; touch {tmp_path}/survived) & sleep 60", timeout_s=0.3)
    begun = time.monotonic()
    with pytest.raises(ProviderFailed, match=r"script did not end within 0\.3 s") as failure:
        provider.start(ORDER)
    assert time.monotonic() - begun < 1.5
    assert not failure.value.is_undone, "nobody knows what it has started"
    time.sleep(2 - (time.monotonic() - begun) + 0.3)
    assert not (tmp_path / "survived").exists()


def test_exit_code_75_says_that_nothing_was_started(tmp_path: Path) -> None:
    for code, is_undone in ((75, True), (1, False)):
        with pytest.raises(ProviderFailed, match=f"exit code {code}: no capacity in eu-west") as failure:
            command(tmp_path, f"echo checking; echo no capacity in eu-west >&2; exit {code}").start(ORDER)
        assert failure.value.is_undone is is_undone
    missing = Command(Scripts.parse("/no/such/script", "true", None))
    with pytest.raises(ProviderFailed, match=r"/no/such/script cannot be run") as failure:
        missing.start(ORDER)
    assert failure.value.is_undone


@pytest.mark.parametrize("said", ["", "fleet-1", '{"a": 1}', "[1, 2]"])
def test_a_list_that_is_no_json_array_of_ids_is_no_list(tmp_path: Path, said: str) -> None:
    with pytest.raises(ProviderFailed, match="instead of a JSON array of ids"):
        command(tmp_path, f"printf '%s' '{said}'").workers(POOL)


@pytest.mark.parametrize("line", ["start {name}", "start {id", "start {0}"])
def test_an_unknown_placeholder_is_refused_with_those_that_there_are(line: str) -> None:
    with pytest.raises(InvalidInput, match=r"the placeholders of a command are \{id\}, \{model\}"):
        Scripts.parse(line, "stop", None)

"""`ponder fleet size`, with the price book of a real API and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ponder.cli import exit_code
from ponder.cli.main import run

Ponder = Callable[..., tuple[int, str, str]]
LLAMA_70B = ("--layers", "80", "--heads", "64", "--kv-heads", "8", "--head-dim", "128", "--parameters", "70e9")
CONFIG = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.fixture
def alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ponder:
    """The command line where no API is known."""
    for name in ("PONDER_BASE_URL", "PONDER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PONDER_HOME", str(tmp_path / "home"))

    def command(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def document(ponder: Ponder, *arguments: str) -> dict[str, Any]:
    code, printed, said = ponder("fleet", "size", *arguments, "--json")
    assert code == exit_code.SETTLED, said
    found: dict[str, Any] = json.loads(printed)
    return found


def test_plain_dimensions_are_sized_on_a_gpu(alone: Ponder) -> None:
    code, printed, _ = alone("fleet", "size", *LLAMA_70B, "--dtype", "fp8", "--context", "10000", "--gpu", "h200")
    assert code == exit_code.SETTLED
    lines = printed.splitlines()
    assert lines[0] == "weights: 70.00 GB (70,000,000,000 parameters in fp8)"
    assert lines[1] == "keys and values: 327,680 bytes a token (bf16), 3.28 GB a sequence of 10,000 tokens"
    header, first, *_ = [line.split("\t") for line in lines[2:]]
    assert header[:2] == ["tensor parallelism", "sequences"]
    assert (first[:2], first[-1]) == (["1 x h200", "17"], "recommended")


def test_every_machine_of_the_price_book_gets_the_price_of_a_million_tokens_or_is_said_to_be_unknown(
    ponder: Ponder,
) -> None:
    for machine, dollars in (("aws-p5.48xlarge", "3"), ("aws-g4dn.xlarge", "0.16"), ("quantum-1", "9")):
        assert ponder("price", "set", machine, "spot", dollars, "--source", "a test")[0] == exit_code.SETTLED
    machines = document(ponder, *LLAMA_70B, "--dtype", "fp8")["machines"]
    prices = [one["decode_nanodollars"] for one in machines if one["decode_nanodollars"] is not None]
    assert prices == sorted(prices)
    found = {one["machine"]: one for one in machines if one["market"] == "spot"}
    h100 = found["aws-p5.48xlarge"]
    assert (h100["gpu"], h100["num_gpus"]) == ("h100", 4)
    assert h100["decode_nanodollars"] == pytest.approx(4 * 3e9 / 3600 / h100["decode_tokens_per_s"] * 1e6)
    assert 0 < h100["prefill_nanodollars"] < h100["decode_nanodollars"]
    assert (found["aws-g4dn.xlarge"]["gpu"], found["aws-g4dn.xlarge"]["num_gpus"]) == ("t4", 8)
    assert (found["quantum-1"]["gpu"], found["quantum-1"]["decode_nanodollars"]) == (None, None)
    rows = [line.split("\t")[:3] for line in ponder("fleet", "size", *LLAMA_70B)[1].splitlines()]
    assert ["quantum-1", "spot", "not recognised"] in rows
    assert ["aws-g4dn.xlarge", "spot", "t4: too small"] in rows, "in bf16"


def test_a_folder_is_read_and_given_parameters_prevail(alone: Ponder, folder: Path) -> None:
    found = document(alone, str(folder), "--gpu", "l4", "--kv-dtype", "fp8")
    assert found["weights"]["parameters"] == pytest.approx(8.03e9, rel=0.01)
    assert found["keys_and_values"]["bytes_per_token"] == 2 * 32 * 8 * 128
    assert found["recommended_tensor_parallelism"] == 2
    assert document(alone, str(folder), "--parameters", "9e9")["weights"]["parameters"] == 9_000_000_000


def test_without_an_api_a_model_is_sized_without_prices(alone: Ponder, folder: Path) -> None:
    code, printed, said = alone("fleet", "size", str(folder), "--gpu", "h100")
    assert code == exit_code.SETTLED
    assert "1 x h100" in printed
    assert "without prices: there is no API key" in said


def test_a_config_that_cannot_be_read_is_named_with_the_field_and_the_remedy(alone: Ponder, folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({name: value for name, value in CONFIG.items() if name != "num_hidden_layers"}))
    code, printed, said = alone("fleet", "size", str(folder))
    assert (code, printed) == (exit_code.USAGE, "")
    assert f"{file}: the field 'num_hidden_layers' is missing" in said
    assert "--layers" in said
    file.write_text("{\n  oops\n}")
    assert (
        "config.json: Expecting property name enclosed in double quotes: line 2"
        in alone("fleet", "size", str(folder))[2]
    )
    file.unlink()
    assert f"{file}: there is no such file" in alone("fleet", "size", str(folder))[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give MODEL, or all of --layers"),
        (("--layers", "80"), "give MODEL, or all of --layers"),
        (("a/b", "--layers", "80"), "--layers is for a model without a config.json"),
        (("a/b", "--gpu", "h999"), "'h999' is not one of 'b200'"),
        ((*LLAMA_70B, "--context", "0"), "0 is not in the range"),
    ],
)
def test_a_wrong_command_line_is_explained(alone: Ponder, arguments: tuple[str, ...], said: str) -> None:
    code, _, explained = alone("fleet", "size", *arguments)
    assert code == exit_code.USAGE
    assert said in explained


def test_a_model_of_the_hub_that_cannot_be_fetched_says_what_would_help(
    alone: Ponder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, _, said = alone("fleet", "size", "nobody/nothing")
    assert code == exit_code.USAGE
    assert "config.json of nobody/nothing@main cannot be fetched" in said
    assert "set HF_TOKEN" in said

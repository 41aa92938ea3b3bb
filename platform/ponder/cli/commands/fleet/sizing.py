"""The command `ponder fleet size`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, out, print_json, print_rows
from ponder.domain.model_source import HubModel
from ponder.domain.money import dollars
from ponder.errors import InvalidInput, SetupError, Unauthorized, Unreachable
from ponder.fleet.sizing.gpu import GPUS, Gpu, recognise
from ponder.fleet.sizing.model_shape import ModelShape
from ponder.fleet.sizing.size import BITS, Fit, Model, fits, recommend
from ponder.remedy import pip_install

_GB = 10**9


@click.command()
@click.argument("model", required=False)
@click.option("--gpu", type=click.Choice(list(GPUS)), help="Show this GPU's fits too.")
@click.option("--context", type=click.IntRange(1), default=32_768, show_default=True, help="Tokens of a sequence.")
@click.option("--dtype", type=click.Choice(list(BITS)), default="bf16", show_default=True, help="Of the weights.")
@click.option(
    "--kv-dtype", type=click.Choice(list(BITS)), default="bf16", show_default=True, help="Of keys and values."
)
@click.option("--parameters", type=click.FloatRange(1), help="The number of parameters, such as 70e9.")
@click.option("--layers", type=click.IntRange(1), help="Instead of MODEL, with --kv-heads, --head-dim, --parameters.")
@click.option("--kv-heads", type=click.IntRange(1))
@click.option("--head-dim", type=click.IntRange(1))
@click.option("--heads", type=click.IntRange(1), help="Heads of queries.  [default: --kv-heads]")
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def size(
    *,
    model: str | None,
    gpu: str | None,
    context: int,
    dtype: str,
    kv_dtype: str,
    parameters: float | None,
    is_json: bool,
    **plain: int | None,
) -> None:
    """Show what a model needs of a GPU, how many sequences fit, and what a million tokens cost at the least.

    MODEL is a folder with a config.json, or org/name[@revision] of the Hugging Face Hub, of which only that file is
    read. Rates are those of the roofline: nothing is faster, and what you measure will be slower.
    """
    shape = _shape(model, None if parameters is None else int(parameters), plain)
    sized = Model(shape, BITS[dtype], BITS[kv_dtype], context)
    prices = _prices()
    machines = [_Machine.of(price, sized) for price in prices or ()]
    machines.sort(key=lambda one: one.decode_nanodollars or float("inf"))
    if is_json:
        print_json(_document(sized, dtype, kv_dtype, GPUS[gpu] if gpu else None, machines))
        return
    _print_model(sized, dtype, kv_dtype)
    if gpu:
        _print_fits(sized, GPUS[gpu])
    if prices is not None:
        print_rows([asdict(machine) for machine in machines], _MACHINE_COLUMNS)


def _shape(model: str | None, parameters: int | None, plain: Mapping[str, int | None]) -> ModelShape:
    if model is None:
        return _plain(parameters, **plain)
    if given := [name for name, value in plain.items() if value is not None]:
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for a model without a config.json")
    path = _config_file(model)
    return ModelShape.parse(_read(path), str(path), parameters)


def _plain(
    parameters: int | None, *, layers: int | None, heads: int | None, kv_heads: int | None, head_dim: int | None
) -> ModelShape:
    if layers is None or kv_heads is None or head_dim is None or parameters is None:
        raise click.UsageError("give MODEL, or all of --layers, --kv-heads, --head-dim and --parameters")
    return ModelShape.plain(
        layers=layers, heads=heads or kv_heads, kv_heads=kv_heads, head_dim=head_dim, parameters=parameters
    )


def _config_file(model: str) -> Path:
    """Returns the path of a model's config.json, which it fetches from the Hub. Raises InvalidInput or SetupError."""
    hub = HubModel.parse(model)
    if hub is not None:
        return _from_hub(hub)
    path = Path(model) / "config.json"
    if not path.is_file():
        remedy = (
            "name a folder in Hugging Face's format or org/name, or give --layers, --kv-heads, --head-dim, --parameters"
        )
        raise InvalidInput(f"{path}: there is no such file: {remedy}")
    return path


def _from_hub(hub: HubModel) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise SetupError(f"{hub} needs huggingface_hub: {pip_install('huggingface_hub')}") from None
    try:
        return Path(hf_hub_download(hub.repository, "config.json", revision=hub.revision))
    except (OSError, HfHubHTTPError) as error:
        raise InvalidInput(
            f"the config.json of {hub} cannot be fetched ({type(error).__name__}): check the name; if it is gated or "
            "private, set HF_TOKEN; or name a folder that has the file"
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidInput(f"{path}: it is not an object of fields")
    return fields


def _prices() -> Sequence[Mapping[str, Any]] | None:
    """Returns the price book, or None without an API, which only prices need."""
    try:
        with connect() as client:
            return client.prices()
    except (Unauthorized, Unreachable) as error:
        click.echo(f"without prices: {error}", err=True)
        return None


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine of the price book with what is recommended there. gpu: None if its name says none that is known."""

    machine: str
    market: str
    currency: str
    nanodollars_per_hour: int
    gpu: str | None
    num_gpus: int | None = None
    num_sequences: int | None = None
    decode_tokens_per_s: float | None = None
    decode_nanodollars: float | None = None
    prefill_nanodollars: float | None = None

    @classmethod
    def of(cls, price: Mapping[str, Any], model: Model) -> _Machine:
        amount = price["nanodollars_per_hour"]
        gpu = recognise(price["machine"])
        machine = cls(price["machine"], price["market"], price["currency"], amount, gpu.name if gpu else None)
        found = recommend(model, gpu) if gpu else None
        if found is None:
            return machine
        return replace(
            machine,
            num_gpus=found.num_gpus,
            num_sequences=found.num_sequences,
            decode_tokens_per_s=found.decode_tokens_per_s,
            decode_nanodollars=found.nanodollars_per_million(amount, found.decode_tokens_per_s),
            prefill_nanodollars=found.nanodollars_per_million(amount, found.prefill_tokens_per_s),
        )


def _document(
    model: Model, dtype: str, kv_dtype: str, gpu: Gpu | None, machines: Sequence[_Machine]
) -> Mapping[str, object]:
    best = recommend(model, gpu) if gpu else None
    return {
        "context": model.context,
        "weights": {"dtype": dtype, "parameters": model.shape.weights.total, "bytes": model.weight_bytes},
        "keys_and_values": {
            "dtype": kv_dtype,
            "bytes_per_token": model.kv_bytes_per_token,
            "bytes_per_sequence": model.kv_bytes_per_sequence,
        },
        "gpu": gpu and asdict(gpu),
        "fits": [_fit_object(found) for found in fits(model, gpu)] if gpu else [],
        "recommended_tensor_parallelism": best and best.num_gpus,
        "machines": [asdict(machine) for machine in machines],
    }


def _fit_object(found: Fit) -> Mapping[str, object]:
    return {name: value for name, value in asdict(found).items() if name != "gpu"}


def _print_model(model: Model, dtype: str, kv_dtype: str) -> None:
    console = out()
    console.print(f"weights: {_gb(model.weight_bytes)} ({model.shape.weights.total:,} parameters in {dtype})")
    console.print(
        f"keys and values: {model.kv_bytes_per_token:,} bytes a token ({kv_dtype}), "
        f"{_gb(model.kv_bytes_per_sequence)} a sequence of {model.context:,} tokens"
    )


def _print_fits(model: Model, gpu: Gpu) -> None:
    best = recommend(model, gpu)
    print_rows(
        [{"fit": found, "is_best": found == best} for found in fits(model, gpu)],
        [
            Column("tensor parallelism", lambda row: f"{row['fit'].num_gpus} x {gpu.name}"),
            Column("sequences", lambda row: f"{row['fit'].num_sequences:,}", is_number=True),
            Column("batch", lambda row: f"{row['fit'].batch:,}", is_number=True),
            Column("generated/s", lambda row: f"{row['fit'].decode_tokens_per_s:,.0f}", is_number=True),
            Column("prompt/s", lambda row: f"{row['fit'].prefill_tokens_per_s:,.0f}", is_number=True),
            Column("", lambda row: "recommended" if row["is_best"] else ""),
        ],
    )
    if best is None:
        click.echo(f"not even one sequence fits on the {gpu.name} GPUs of one machine", err=True)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:,.2f} GB"


def _gpus(row: Mapping[str, Any]) -> str:
    if row["gpu"] is None:
        return "not recognised"
    return f"{row['num_gpus']} x {row['gpu']}" if row["num_gpus"] else f"{row['gpu']}: too small"


def _price(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    amount = dollars(row[name])
    return amount if row["currency"] == "USD" else f"{amount.removeprefix('$')} {row['currency']}"


_MACHINE_COLUMNS = [
    Column("machine", lambda row: row["machine"]),
    Column("market", lambda row: row["market"]),
    Column("GPUs", _gpus),
    Column(
        "sequences", lambda row: "–" if row["num_sequences"] is None else f"{row['num_sequences']:,}", is_number=True
    ),
    Column("$/M generated", lambda row: _price(row, "decode_nanodollars"), is_number=True),
    Column("$/M prompt", lambda row: _price(row, "prefill_nanodollars"), is_number=True),
]

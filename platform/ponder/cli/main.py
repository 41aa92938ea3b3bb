"""The command `ponder`: its subcommands, and the reporting of every failure."""

from __future__ import annotations

import os
import sys

import click

import ponder
from ponder.cli import exit_code
from ponder.cli.lazy_group import Lazy, LazyGroup
from ponder.cli.terminal import harmless_streams
from ponder.errors import InvalidInput, PonderError

SECTIONS = {
    "Start here": {
        "demo": Lazy("A few minutes: a real batch, a real search, a real bill, on this machine.", extra="demo"),
        "up": Lazy("Start everything on this machine, in the background.", "ponder.cli.commands.stack:up"),
        "down": Lazy("Stop it.", "ponder.cli.commands.stack:down"),
        "status": Lazy("Show what is running here, and its state.", "ponder.cli.commands.stack:status"),
        "env": Lazy('For eval "$(ponder env)": points the OpenAI SDK here.', "ponder.cli.commands.env:env"),
        "doctor": Lazy(
            "Report what is missing on this machine and how to get it.", "ponder.cli.commands.doctor:doctor"
        ),
    },
    "Batches": {
        "run": Lazy("Submit a file, watch it, fetch its results.", "ponder.cli.commands.run:run"),
        "submit": Lazy("Submit a file and print the batch's id.", "ponder.cli.commands.submit:submit"),
        "estimate": Lazy(
            "Estimate what a file would take, without submitting it.", "ponder.cli.commands.estimate:estimate"
        ),
        "watch": Lazy("Show a batch's progress until it is settled.", "ponder.cli.commands.watch:watch"),
        "results": Lazy("Fetch a batch's results.", "ponder.cli.commands.results:results"),
        "cancel": Lazy("Cancel a batch.", "ponder.cli.commands.batch:cancel"),
        "budget": Lazy("Change what a batch may spend.", "ponder.cli.commands.batch:budget"),
        "pause": Lazy("Pause a batch.", "ponder.cli.commands.batch:pause"),
        "resume": Lazy("Resume a paused batch.", "ponder.cli.commands.batch:resume"),
        "confirm": Lazy("Say yes to the estimate of a batch's pilot.", "ponder.cli.commands.batch:confirm"),
        "retry": Lazy("Run a batch's failed and expired jobs again.", "ponder.cli.commands.batch:retry"),
        "batches": Lazy("List the batches, newest first.", "ponder.cli.commands.batch:batches"),
        "show": Lazy("Show one job: its search tree, attempts and cost.", "ponder.cli.commands.show:show"),
        "open": Lazy("Open the console in a browser, at a batch or a job.", "ponder.cli.commands.show:open_console"),
        "report": Lazy("Report the cost per task and per successful task.", "ponder.cli.commands.report:report"),
        "bench": Lazy("Measure models, strategies and serving settings together.", "ponder.bench.commands:bench"),
    },
    "Administration": {
        "prune": Lazy("Delete what expired batches left.", "ponder.cli.commands.batch:prune"),
        "tenant": Lazy("Create and list tenants.", "ponder.cli.commands.tenant:tenant"),
        "key": Lazy("Create, list and revoke API keys.", "ponder.cli.commands.key:key"),
        "fleet": Lazy(
            "Plan the workers: how many, on which machines, and why.", "ponder.cli.commands.fleet.group:fleet"
        ),
        "price": Lazy("List and set the hourly prices of machines.", "ponder.cli.commands.price:price"),
    },
    "Services": {
        "serve": Lazy("Run the API and the console.", "ponder.cli.commands.services:serve"),
        "dispatcher": Lazy("Run the dispatcher.", "ponder.cli.commands.services:dispatcher"),
        "autoscaler": Lazy("Start and stop workers as needed.", "ponder.cli.commands.services:autoscaler"),
        "worker": Lazy("Run a worker.", extra="worker"),
        "migrate": Lazy("Bring the database to the newest schema.", "ponder.cli.commands.services:migrate"),
    },
}

EPILOG = """\b
Exit codes: 0 all settled; 1 error; 2 wrong usage or input file;
3 settled, but some jobs failed, expired or were refused; 4 stopped at its budget; 130 interrupted.
"""


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(ponder.__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Submit a batch of hard problems; get searched, verified answers, and the cost of each."""


def main() -> None:
    """Runs the console script. Every error but our own bugs becomes one message on stderr and an exit code."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    command = (sys.argv[1:] if arguments is None else arguments)[:1]
    if command and command[0] in SECTIONS["Services"]:
        return _run(arguments)  # the logs of services have colours, and quote nobody
    with harmless_streams():
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    try:
        answer = cli.main(arguments, prog_name="ponder", standalone_mode=False)
        return answer if isinstance(answer, int) else exit_code.SETTLED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return exit_code.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does, so nothing may be flushed into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_code.SETTLED
    except InvalidInput as error:
        _tell(f"{error} ({error.param})" if error.param else str(error))
        return exit_code.USAGE
    except PonderError as error:
        _tell(str(error))
        return exit_code.FAILED


def _tell(error: str) -> None:
    """Prints an error, or writes it as the last line of a service's log, which programs read."""
    structlog = sys.modules.get("structlog")  # a client-only installation has none
    if structlog is not None and structlog.is_configured() and not sys.stderr.isatty():
        structlog.get_logger(__name__).critical("ended", error=error)
    else:
        click.echo(f"error: {error}", err=True)

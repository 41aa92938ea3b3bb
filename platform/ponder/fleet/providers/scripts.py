"""The operator's own scripts, as a provider."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from ponder.errors import InvalidInput
from ponder.failure import without_logins
from ponder.fleet.provider import Order, Pool, ProviderFailed

_NOTHING_STARTED = 75
"""The exit code by which a start command says that there is nothing to stop (EX_TEMPFAIL of sysexits.h)."""
_LONGEST_SAID = 300


@dataclass(frozen=True, slots=True)
class Scripts:
    """The commands, split into words, in which `{id}` and so on are replaced. Raises InvalidInput for unknown ones.

    A command gets the order as one JSON object on standard input too. `start` may print a JSON object with `handle`,
    and `listing` prints a JSON array of the ids of all workers that exist.
    """

    start: tuple[str, ...]
    stop: tuple[str, ...]
    listing: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        probe = _fields(Order("id", Pool("model", "machine", "market"), 1))
        for command in (self.start, self.stop, self.listing or ()):
            _filled(command, probe)

    @classmethod
    def parse(cls, start: str, stop: str, listing: str | None) -> Scripts:
        """Splits command lines as a shell would."""
        return cls(
            _words("--start-command", start),
            _words("--stop-command", stop),
            _words("--list-command", listing) if listing is not None else None,
        )


class Command:
    """Runs a command for every request, and gives it `timeout_s`. Exit code 0 means that the request is met."""

    names_workers = False

    def __init__(self, scripts: Scripts, *, offers: Collection[tuple[str, str]] = (), timeout_s: float = 60.0) -> None:
        self._scripts = scripts
        self.offered = offers
        self._timeout_s = timeout_s

    def offers(self, machine: str, market: str) -> bool:
        return not self.offered or (machine, market) in self.offered

    def start(self, order: Order) -> str | None:
        said = self._run(self._scripts.start, _fields(order))
        try:
            document = json.loads(said)
        except ValueError:
            return None
        handle = document.get("handle") if isinstance(document, dict) else None
        return str(handle)[:_LONGEST_SAID] if handle is not None else None

    def stop(self, order: Order) -> None:
        self._run(self._scripts.stop, _fields(order))

    def workers(self, pool: Pool) -> frozenset[str] | None:
        if self._scripts.listing is None:
            return None
        said = self._run(self._scripts.listing, {})
        try:
            names = json.loads(said)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ProviderFailed(f"the list command printed {said[:80]!r} instead of a JSON array of ids")
        return frozenset(names)

    def close(self) -> None:
        """Leaves what was started: the next autoscaler goes on with it."""

    def _run(self, command: tuple[str, ...], fields: dict[str, str | int]) -> str:
        words = _filled(command, fields)
        name = Path(words[0]).name
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ProviderFailed(f"{words[0]} cannot be run: {error.strerror}", is_undone=True) from error
        with process:
            try:
                out, err = process.communicate(json.dumps(fields), timeout=self._timeout_s)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)  # its children too, or they would hold the pipes open
                raise ProviderFailed(f"{name} did not end within {self._timeout_s:g} s") from error
        if process.returncode != 0:
            said = (err.strip() or out.strip()).splitlines()[-1:] or ["it printed nothing"]
            raise ProviderFailed(
                f"{name} ended with exit code {process.returncode}: {without_logins(said[0])[:_LONGEST_SAID]}",
                is_undone=process.returncode == _NOTHING_STARTED,
            )
        return out


def _words(option: str, line: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise InvalidInput(f"{option} {line}: {str(error).lower()}; quote it as for a shell") from error
    if not words:
        raise InvalidInput(f"{option} is empty: name a program")
    return words


def _fields(order: Order) -> dict[str, str | int]:
    return {"id": order.id, **asdict(order.pool), "num_workers": order.num_workers, "handle": order.handle or ""}


def _filled(command: tuple[str, ...], fields: dict[str, str | int]) -> list[str]:
    try:
        return [word.format_map(fields) for word in command]
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(f"{{{name}}}" for name in fields)
        raise InvalidInput(f"{' '.join(command)}: the placeholders of a command are {known}") from error

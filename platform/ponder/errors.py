"""Every error that ponder raises on purpose.

PonderError
├── InvalidInput            what a person handed in is wrong: names the place and the remedy
│   ├── InvalidLine         one line of a batch file; never stops the others
│   ├── UnknownModel        no worker ever registered this model
│   └── UnknownMachine      the price book has no entry for this machine and market
├── NotFound                no such thing, or it belongs to another tenant
├── Conflict                the request contradicts what is already there
├── LimitReached            a tenant has as much as it may have at a time: names the setting
├── Unauthorized            no key, a wrong key, a revoked key
├── Forbidden               the key is right, but not for this
├── LeaseLost               this incarnation's lease has ended: nothing it writes is accepted any more
├── IllegalMove             a state change that the table of legal moves does not have: our own bug
├── LedgerImbalance         entries and bill differ: our own bug
├── Unreachable             a service that ponder needs does not answer
└── SetupError              this machine lacks something; says how to get it
"""

from __future__ import annotations


class PonderError(Exception):
    """Root of the tree."""


class InvalidInput(PonderError):
    """What a person handed in is wrong.

    `param` is the path of the offending field (`body.max_tokens`), `code` a stable word for programs.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidLine(InvalidInput):
    """One line of a batch file is wrong; `line` counts from 1."""

    def __init__(
        self,
        message: str,
        *,
        line: int,
        code: str,
        param: str | None = None,
        custom_id: str | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.line = line
        self.custom_id = custom_id


class UnknownModel(InvalidInput):
    """No worker ever registered this model."""


class UnknownMachine(InvalidInput):
    """The price book has no entry for this machine and market."""


class NotFound(PonderError):
    """No such thing, or it belongs to another tenant: the two look alike on purpose.

    `param` is what named it: a parameter of the route, or a field of the body.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Conflict(PonderError):
    """The request contradicts what is already there."""


class LimitReached(PonderError):
    """A tenant has as much as it may have at a time.

    `retry_after_s`: seconds after which there may be room. `is_passing`: to wait is enough; nothing must be done.
    """

    def __init__(self, message: str, *, code: str, retry_after_s: float = 1.0, is_passing: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.is_passing = is_passing


class Unauthorized(PonderError):
    """No key, a wrong key or a revoked key."""


class Forbidden(PonderError):
    """The key is right, but not for this."""


class LeaseLost(PonderError):
    """The incarnation's lease has ended; every write of it is refused."""


class IllegalMove(PonderError):
    """A state change that the table of legal moves does not have."""


class LedgerImbalance(PonderError):
    """The entries of an incarnation do not add up to its bill."""


class Unreachable(PonderError):
    """A service that ponder needs does not answer; says which, where, and how to start it."""


class SetupError(PonderError):
    """This machine lacks something; the message says how to get it."""

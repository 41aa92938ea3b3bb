"""Every error that ponder raises on purpose.

PonderError
├── InvalidInput            a user's input is wrong: names the place and the remedy
│   ├── InvalidLine         one line of a batch file; never stops the others
│   ├── UnknownModel        no worker has ever registered this model
│   └── UnknownMachine      the price book has no entry for this machine and market
├── NotFound                no such thing, or it belongs to another tenant
├── Gone                    it was there, and was deleted once its time was over
├── Conflict                the request contradicts what is already there
├── LimitReached            a tenant has reached a limit: names the setting
├── Unauthorized            no key, a wrong key, a revoked key
├── Forbidden               the key is right, but not for this
├── LeaseLost               this incarnation's lease has ended, and its writes are refused
├── IllegalMove             a state change is not in the table of legal moves: our own bug
├── LedgerImbalance         entries and bill differ: our own bug
├── Unreachable             a service that ponder needs does not answer
└── SetupError              this machine lacks something; says how to get it
"""

from __future__ import annotations


class PonderError(Exception):
    """The root of the tree."""


class InvalidInput(PonderError):
    """A user's input is wrong.

    `param` is the path of the offending field (`body.max_tokens`), and `code` is a stable word for programs.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidLine(InvalidInput):
    """One line of a batch file is wrong. `line` counts from 1."""

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
    """No worker has ever registered this model."""


class UnknownMachine(InvalidInput):
    """The price book has no entry for this machine and market."""


class NotFound(PonderError):
    """The object does not exist or belongs to another tenant. The two look alike on purpose.

    `param` is the parameter of the route, or the field of the body, that named it.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Gone(PonderError):
    """The results of a batch have expired and were deleted. The message says when."""


class Conflict(PonderError):
    """The request contradicts what is already there."""


class LimitReached(PonderError):
    """A tenant has reached a limit.

    There may be room after `retry_after_s` seconds. `is_passing` means that waiting is enough.
    """

    def __init__(self, message: str, *, code: str, retry_after_s: float = 1.0, is_passing: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.is_passing = is_passing


class Unauthorized(PonderError):
    """The key is missing, wrong or revoked."""


class Forbidden(PonderError):
    """The key is valid but does not allow this."""


class LeaseLost(PonderError):
    """The incarnation's lease has ended, and every write of it is refused."""


class IllegalMove(PonderError):
    """A state change is not in the table of legal moves."""


class LedgerImbalance(PonderError):
    """The entries of an incarnation do not add up to its bill."""


class Unreachable(PonderError):
    """A service that ponder needs does not answer. The message says which, where, and how to start it."""


class SetupError(PonderError):
    """Something that ponder needs is missing on this machine. The message says how to get it."""

"""Finds the API and the key that the commands use."""

from __future__ import annotations

from ponder.client import Client
from ponder.embedded.home import Home
from ponder.errors import Unauthorized
from ponder.settings import Settings


def base_url(settings: Settings) -> str:
    """Returns the URL from the environment, or of the stack under PONDER_HOME, or the default."""
    if settings.base_url:
        return settings.url
    return Home(settings.home).recorded_url() or settings.url


def api_key(settings: Settings) -> str:
    if settings.api_key:
        return settings.api_key.get_secret_value()
    key = Home(settings.home).key()
    if key is None:
        raise Unauthorized(
            "there is no API key: set PONDER_API_KEY, or start ponder on this machine with `ponder up`, "
            f"which leaves one under {settings.home}"
        )
    return key


def connect(*, patience_s: float = 3.0) -> Client:
    settings = Settings()
    return Client.of(base_url(settings), api_key(settings), patience_s=patience_s)

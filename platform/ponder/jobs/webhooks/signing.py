"""Secrets and signatures of webhooks, as Standard Webhooks 1.0.0 defines them (www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from ponder.settings import Settings

_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True, repr=False)
class SecretMaker:
    """Makes each tenant's secret from the operator's key and a salt, so that the database holds no secret."""

    key: bytes

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Returns None if the operator has set no key, so that there are no webhooks."""
        key = settings.webhook_key.get_secret_value() if settings.webhook_key is not None else ""
        return cls(key.encode()) if key else None

    @property
    def check(self) -> bytes:
        """A value that tells whether secrets were made with the same key."""
        return self._digest(b"check")[:8]

    def secret(self, tenant_id: str, salt: bytes) -> str:
        return _PREFIX + base64.b64encode(self._digest(b"secret", tenant_id.encode(), salt)).decode()

    def _digest(self, *parts: bytes) -> bytes:
        return hmac.digest(self.key, b"\0".join((b"ponder webhook", *parts)), hashlib.sha256)


def headers(message_id: str, at_s: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """Returns the headers of an attempt at Unix time `at_s`, with one signature for each secret."""
    content = b"%s.%d.%s" % (message_id.encode(), at_s, body)
    keys = [base64.b64decode(secret.removeprefix(_PREFIX)) for secret in secrets]
    signatures = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }

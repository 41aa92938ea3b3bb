"""The one place that reads the environment. Everything else is handed what it needs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every variable begins with `PONDER_`; the defaults are those of one machine with nothing installed."""

    model_config = SettingsConfigDict(env_prefix="PONDER_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".ponder")
    """Where the embedded services keep their data, logs and the key of the local user."""

    database_url: SecretStr | None = None
    """postgresql://…; unset means the embedded Postgres under `home`."""

    redis_url: SecretStr | None = None
    """redis://, rediss:// or unix://; unset means the embedded Redis under `home`."""

    host: str = "127.0.0.1"
    port: int = 8765

    max_connections: int = Field(default=1000, gt=0)
    """At a time, to the API; beyond it the one that has waited longest for its client is closed."""

    client_timeout_s: float = Field(default=20.0, gt=0)
    """How long the API waits for the rest of a request, or for a client to read its answer."""

    base_url: str | None = None
    """Where the API is, for the client; unset means http://host:port."""

    api_key: SecretStr | None = None
    """The client's key; unset means the key that `ponder up` left under `home`."""

    operator_key: SecretStr | None = None
    """Made an operator's key by `ponder migrate`: how the first key of a fleet comes into being, and back."""

    tick_s: float = Field(default=2.0, gt=0)
    lease_s: float = Field(default=30.0, gt=0)
    """How long an incarnation may be silent before its work is handed on; many ticks long."""

    shard_tokens: int = Field(default=200_000, gt=0)
    """Estimated tokens a shard; a shard also never has more than 256 jobs."""

    allow_code: bool = False
    """Whether the verifier `python_tests` may run programs that a model wrote; see docs/operations.md."""

    log_level: str = "info"

    @property
    def url(self) -> str:
        """The base URL of the API, without a trailing slash or `/v1`."""
        base = self.base_url or f"http://{self.host}:{self.port}"
        return base.rstrip("/").removesuffix("/v1")

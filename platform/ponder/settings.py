"""The settings: the only place that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings from variables that begin with `PONDER_`. The defaults suit one machine with nothing installed."""

    model_config = SettingsConfigDict(env_prefix="PONDER_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".ponder")
    """The folder of the embedded services' data and logs, and of the local user's key."""

    database_url: SecretStr | None = None
    """Postgres's URL (postgresql://…). Unset means the embedded Postgres under `home`."""

    redis_url: SecretStr | None = None
    """Redis's URL (redis://, rediss:// or unix://). Unset means the embedded Redis under `home`."""

    host: str = "127.0.0.1"
    port: int = 8765

    max_connections: int = Field(default=1000, gt=0)
    """Connections to the API at a time. Beyond this, the one that has waited longest for its client is closed."""

    client_timeout_s: float = Field(default=20.0, gt=0)
    """How long the API waits for the rest of a request, or for a client to read its answer."""

    base_url: str | None = None
    """The API's address for the client. Unset means http://host:port."""

    api_key: SecretStr | None = None
    """The client's key. Unset means the key that `ponder up` left under `home`."""

    operator_key: SecretStr | None = None
    """The key that `ponder migrate` makes an operator's key: a fleet's first key, and the way to restore it."""

    webhook_key: SecretStr | None = None
    """The key that the secrets of webhooks are made from: 32 random characters or more. Unset means no webhooks, or
    under `ponder up` a key that it makes."""

    webhook_private: bool = False
    """Whether webhooks may go to private addresses and over plain http."""

    tick_s: float = Field(default=2.0, gt=0)
    lease_s: float = Field(default=30.0, gt=0)
    """How long an incarnation may be silent before its work is handed on. It should be many ticks long."""

    shard_tokens: int = Field(default=200_000, gt=0)
    """Estimated tokens per shard. A shard also never has more than 256 jobs."""

    allow_code: bool = False
    """Whether the verifier `python_tests` may run programs that a model wrote (see docs/operations.md)."""

    alive_file: Path | None = None
    """Touched by a dispatcher and a worker while they do their rounds, for health checks."""

    metadata_url: str = "http://169.254.169.254"
    """The base of the cloud's metadata service, which a worker asks for notices (see `ponder worker --notices`)."""

    # Limits on what a tenant may have at a time. They do not apply to operators' keys.

    max_requests_per_s: float = Field(default=50.0, gt=0)
    """The average over ten seconds, for each process of the API."""

    max_uploads: int = Field(default=4, gt=0)
    max_submissions: int = Field(default=8, gt=0)
    """Submissions being read at a time, for each process of the API, as `max_uploads` is for uploads."""

    max_streams: int = Field(default=32, gt=0)
    """Followed results at a time, for each process of the API."""

    max_pages: int = Field(default=256, gt=0)
    """Pages that are open in the console at a time, for each process of the API."""

    max_stored_bytes: int = Field(default=100 * 1024**3, gt=0)
    """The total size of a tenant's uploaded files that were not deleted."""

    max_open_batches: int = Field(default=1_000, gt=0)

    validators: int = Field(default=4, gt=0)
    """Batches that a dispatcher validates at a time, each in a process. One tenant may have half of them."""

    # Limits on what a tenant may cost others. Each refusal names the setting.

    max_pattern_length: int = Field(default=2_000, gt=0)
    """Characters of a regular expression, alone or in a schema."""

    max_schema_bytes: int = Field(default=65_536, gt=0)
    max_schema_depth: int = Field(default=64, gt=0)
    max_subschemas: int = Field(default=1_000, gt=0)
    """Objects and booleans in a JSON schema."""

    max_check_s: float = Field(default=1.0, gt=0)
    """Processor time that the check of one line, or of a submission, may take."""

    max_batch_check_s: float = Field(default=60.0, gt=0)
    """Processor time for the lines of a batch, beyond a hundredth of a second for each of them."""

    interactive_share: float = Field(default=0.75, gt=0, le=1)
    """The share of the workers' capacity that interactive work may take while other work waits."""

    interactive_tokens: int = Field(default=1_000_000, gt=0)
    """Estimated tokens of a tenant's interactive work in flight. Work beyond this goes into the lane `batch`."""

    interactive_factor: float = Field(default=1.0, gt=0)
    """The weight of an interactive nano-dollar when tenants take turns. It does not change the bill."""

    fleet_interval_s: float = Field(default=5.0, gt=0)
    """How often an autoscaler looks at the workers and asks for the plans."""

    fleet_cool_down_s: float = Field(default=60.0, ge=0)
    """An autoscaler drains a worker that was too many for so long, and whose pool's last start is as long ago."""

    log_level: str = "info"

    # OpenTelemetry's own variables. Its SDK reads them and all others (see docs/operations.md); these say whether it is
    # loaded.

    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    traces_exporter: str | None = Field(default=None, validation_alias="OTEL_TRACES_EXPORTER")
    otel_sdk_disabled: str = Field(default="", validation_alias="OTEL_SDK_DISABLED")

    @property
    def is_traced(self) -> bool:
        """Whether spans are to be exported by OTLP."""
        if self.otel_sdk_disabled.strip().lower() == "true":
            return False
        return self.traces_exporter.strip() == "otlp" if self.traces_exporter else bool(self.otlp_endpoint)

    @property
    def url(self) -> str:
        """The base URL of the API, without a trailing slash or `/v1`."""
        base = self.base_url or f"http://{self.host}:{self.port}"
        return base.rstrip("/").removesuffix("/v1")

"""The options of the workers in a stack on one machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from ponder.processor import num_cores


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of `ponder worker` about how it computes. None and False mean that an option is not given.

    Fields have the names of options, so that `arguments` can repeat them.
    """

    device: str = "auto"
    dtype: str = "auto"
    kv_dtype: str = "auto"
    max_sequences: int = 256
    threads: int | None = None
    worker_name: str | None = None
    allow_code: bool = False
    metrics_port: int | None = None
    engine: str = "own"
    reward_engine: str | None = None
    engine_arg: tuple[str, ...] = ()
    memory_split: float | None = None
    step_tokens: int = 2048
    no_prefix_caching: bool = False
    no_speculation: bool = False

    def shared(self, num_workers: int) -> list[WorkerOptions]:
        """Returns the options of each worker of one machine, with its own name and port and its share of the cores."""
        if num_workers == 1:
            return [self]
        return [
            replace(
                self,
                threads=self.threads or max(1, num_cores() // num_workers),
                worker_name=self.worker_name and f"{self.worker_name}-{number}",
                metrics_port=self.metrics_port and self.metrics_port + number - 1,
            )
            for number in range(1, num_workers + 1)
        ]

    def arguments(self) -> list[str]:
        """Returns the options for the command line of `ponder worker`."""
        given: list[str] = []
        for field, value in asdict(self).items():
            option = f"--{field.replace('_', '-')}"
            if value is True:
                given.append(option)
            elif isinstance(value, tuple):
                given += [part for one in value for part in (option, str(one))]
            elif value is not None and value is not False:
                given += [option, str(value)]
        return given

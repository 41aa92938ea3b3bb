"""A view of vLLM's scheduler: the part of a step that vLLM's own interface does not show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """Tokens [start, end) of a request, computed in one step."""

    start: int
    end: int


class SchedulerView:
    """Reads the scheduler of an engine core in this process, and changes nothing but priorities and the step's size."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._chunks: dict[str, ScheduledChunk] = {}
        self.num_preemptions = 0
        self._watch()

    def _watch(self) -> None:
        """Keeps what each call of `schedule` returns."""
        schedule = self._scheduler.schedule

        def watched(*arguments: Any, **options: Any) -> Any:
            output = schedule(*arguments, **options)
            self._chunks |= _chunks(output)
            self.num_preemptions += len(output.preempted_req_ids or ())
            return output

        self._scheduler.schedule = watched

    def take(self) -> Mapping[str, ScheduledChunk]:
        """Returns what was computed since the last call, by request."""
        chunks, self._chunks = self._chunks, {}
        return chunks

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return sum(map(len, self._queues))

    @property
    def num_free_blocks(self) -> int:
        return int(self._pool.get_num_free_blocks())

    @property
    def num_blocks(self) -> int:
        return int(self._pool.num_gpu_blocks) - 1  # vLLM keeps one as a null

    @property
    def num_requests(self) -> int:
        return len(self._scheduler.requests)

    def waiting_tokens(self) -> int:
        return sum(request.num_tokens for queue in self._queues for request in queue)

    def bound_step(self, num_tokens: int) -> None:
        """Sets the most tokens of the next steps, which may not exceed vLLM's max_num_batched_tokens."""
        self._scheduler.max_num_scheduled_tokens = num_tokens

    def promote(self, request_id: str, priority: int) -> None:
        """Changes the priority of a request, which is the key of the heap that it may wait in."""
        request = self._scheduler.requests.get(request_id)
        if request is None:
            return
        for queue in self._queues:
            if any(request is other for other in queue):
                queue.remove_request(request)
                request.priority = priority
                queue.add_request(request)
                return
        request.priority = priority

    @property
    def _queues(self) -> tuple[Any, Any]:
        return self._scheduler.waiting, self._scheduler.kv_holding_waiting

    @property
    def _pool(self) -> Any:
        return self._scheduler.kv_cache_manager.block_pool


def _chunks(output: Any) -> dict[str, ScheduledChunk]:
    starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    starts |= zip(cached.req_ids, cached.num_computed_tokens, strict=True)
    return {
        request_id: ScheduledChunk(starts[request_id], starts[request_id] + num_tokens)
        for request_id, num_tokens in output.num_scheduled_tokens.items()
    }

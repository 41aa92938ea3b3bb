"""How long requests wait and take, in buckets for Prometheus."""

from bisect import bisect_left
from collections.abc import Sequence as Series

from ponder_worker.engine.step_plan import Output

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)


class LatencyHistogram:
    """Observations by bucket.

    counts: for each bound of BUCKETS_S those up to it and above the bound before, then those above all bounds.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += times
        self.sum_s += seconds * times


class Latencies:
    """Latencies of generated sequences, under the names that vLLM gives them."""

    def __init__(self) -> None:
        self.time_to_first_token_seconds = LatencyHistogram()
        self.inter_token_latency_seconds = LatencyHistogram()
        self.e2e_request_latency_seconds = LatencyHistogram()
        self.request_queue_time_seconds = LatencyHistogram()

    def observe(self, outputs: Series[Output], planned_s: float, now_s: float) -> None:
        """Counts a step that was planned at planned_s and committed at now_s."""
        num_since: dict[float, int] = {}  # most sequences got their previous token at the end of the same step
        for sequence, tokens, _, finish_reason, _, computed_tokens, _ in outputs:
            if sequence.started_s is None and computed_tokens and sequence.sampling is not None:
                sequence.started_s = planned_s
                self.request_queue_time_seconds.observe(planned_s - sequence.arrived_s)
            if not tokens:
                continue
            previous_s = sequence.token_s
            if previous_s is None:
                self.time_to_first_token_seconds.observe(now_s - sequence.arrived_s)
            else:
                num_since[previous_s] = num_since.get(previous_s, 0) + 1
            sequence.token_s = now_s
            if finish_reason is not None:
                self.e2e_request_latency_seconds.observe(now_s - sequence.arrived_s)
        for previous_s, times in num_since.items():
            self.inter_token_latency_seconds.observe(now_s - previous_s, times)

    def as_numbers(self) -> dict[str, tuple[list[int], float]]:
        """Returns counts and sum of each histogram, by name."""
        return {name: (histogram.counts, histogram.sum_s) for name, histogram in vars(self).items()}

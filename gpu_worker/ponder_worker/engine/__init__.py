"""A paged, continuously batching inference engine over token ids. It knows no job, no queue and no database."""

from ponder_worker.engine.engine import Counters, Engine, Output
from ponder_worker.engine.errors import EngineError, InvalidRequest, InvalidSampling, InvalidSetting, OversizedRequest
from ponder_worker.engine.sampling import Sampling
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.storage import Memory

__all__ = [
    "Counters",
    "Engine",
    "EngineError",
    "InvalidRequest",
    "InvalidSampling",
    "InvalidSetting",
    "Memory",
    "Output",
    "OversizedRequest",
    "Sampling",
    "Sequence",
]

"""A paged, continuously batching inference engine over token ids. It knows no job, no queue and no database."""

from ponder_worker.engine.engine import Counters, Engine, Output
from ponder_worker.engine.errors import EngineError, InvalidRequest, InvalidSampling, InvalidSetting, OversizedRequest
from ponder_worker.engine.kv.kv_storage import Memory
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sequence import Sequence

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
    "SamplingParams",
    "Sequence",
]

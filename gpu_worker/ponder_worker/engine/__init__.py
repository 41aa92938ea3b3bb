"""A paged, continuously batching inference engine over token ids. It knows no job, no queue and no database."""

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.engine import Engine
from ponder_worker.engine.engine_error import (
    EngineError,
    InvalidRequest,
    InvalidSampling,
    InvalidSetting,
    OversizedRequest,
)
from ponder_worker.engine.kv.kv_memory import Memory
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sampling.structure_matcher import Structure
from ponder_worker.engine.sequence import Sequence
from ponder_worker.engine.step_plan import Output

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
    "Structure",
]

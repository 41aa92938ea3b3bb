"""The errors of the engine.

EngineError
├── InvalidSetting       sizes with which no engine can be made
├── InvalidSampling      a sampling parameter out of range
└── InvalidRequest       tokens or positions that make no valid request
    └── OversizedRequest   a request that could never fit, however long it waited
"""


class EngineError(Exception):
    """The message names the parameter, its value, and what would be valid."""


class InvalidSetting(EngineError):
    pass


class InvalidSampling(EngineError):
    pass


class InvalidRequest(EngineError):
    pass


class OversizedRequest(InvalidRequest):
    pass

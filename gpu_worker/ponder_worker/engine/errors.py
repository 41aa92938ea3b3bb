"""What the engine refuses.

EngineError
├── InvalidSetting       an engine cannot be made with these sizes
├── InvalidSampling      a sampling parameter is out of its range
└── InvalidRequest       tokens or positions that make no request
    └── OversizedRequest   a request that could never fit, however long it waited
"""


class EngineError(Exception):
    """The message names the parameter, what it was, and what would be right."""


class InvalidSetting(EngineError):
    pass


class InvalidSampling(EngineError):
    pass


class InvalidRequest(EngineError):
    pass


class OversizedRequest(InvalidRequest):
    pass

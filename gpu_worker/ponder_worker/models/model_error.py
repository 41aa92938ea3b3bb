"""Errors in a model.

ModelError
├── UnreachableModel       a model of the Hub that is neither in the cache nor to be fetched
├── MissingFile            a file that every model folder must have is missing
├── InvalidFile            a file cannot be read as what it should be
├── UnsupportedModel       an architecture, activation, rope type or reward kind that is not implemented
├── MissingTensor          the weights lack a tensor that the config asks for
├── MismatchedTensor       a tensor has another shape than the config asks for
├── UnsupportedPrecision   a dtype that this machine cannot compute with
└── InvalidConversation    messages that the chat template refuses, or no template to render them with
"""


class ModelError(Exception):
    """A model cannot be used; the message names the folder or file, and the field."""


class UnreachableModel(ModelError):
    pass


class MissingFile(ModelError):
    pass


class InvalidFile(ModelError):
    pass


class UnsupportedModel(ModelError):
    pass


class MissingTensor(ModelError):
    pass


class MismatchedTensor(ModelError):
    pass


class UnsupportedPrecision(ModelError):
    pass


class InvalidConversation(ModelError):
    pass

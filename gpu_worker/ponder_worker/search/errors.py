"""Why a job fails, and nothing but that job. The messages hold nothing of the prompt.

SearchError
├── PromptTooLong      the prompt leaves no room in the model's context
├── InvalidRequest     the request cannot be run by this model; the message says why
├── NoRewardModel      the strategy scores, and this worker has no reward model
├── NoVerifier         the strategy asks a verifier, and there is none that it may ask
└── NothingMade        the search was ended before it had an answer
"""

from __future__ import annotations


class SearchError(Exception):
    code = "search_error"


class PromptTooLong(SearchError):
    code = "context_length_exceeded"


class InvalidRequest(SearchError):
    code = "invalid_request"


class NoRewardModel(SearchError):
    code = "no_reward_model"


class NoVerifier(SearchError):
    code = "no_verifier"


class NothingMade(SearchError):
    code = "nothing_made"

"""The reasons for which a search fails its own job and no other. The messages hold nothing of the prompt.

SearchError
├── PromptTooLong      the prompt leaves no room in the model's context
├── InvalidRequest     this model cannot run the request; the message says why
├── NoRewardModel      the strategy needs scores, and this worker has no reward model
├── NoVerifier         the strategy needs a verifier, and it may not ask one
└── NothingMade        the search was ended before it had produced a candidate
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

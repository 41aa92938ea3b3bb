"""What went wrong with Postgres, in words that may stand in a log."""

from __future__ import annotations


def brief(error: BaseException) -> str:
    """Without the statement's parameters and Postgres's details, which may hold prompts."""
    original = getattr(error, "orig", None) or error
    answer = original.args[0] if original.args else None
    said = f"{answer.get('C')} {answer.get('M')}" if isinstance(answer, dict) else str(original)
    return f"{type(original).__name__}: {said[:300]}"

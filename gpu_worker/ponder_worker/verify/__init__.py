"""Decides whether an answer is right. Verifiers that may hang run in processes of their own, with a time limit."""

from __future__ import annotations

from ponder_worker.verify.case import Case, Judgement
from ponder_worker.verify.examine import examine, is_pure
from ponder_worker.verify.judge import Judge

__all__ = ["Case", "Judge", "Judgement", "examine", "is_pure"]

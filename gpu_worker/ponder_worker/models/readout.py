"""The readout of a reward model: one probability, computed from the hidden state at a position."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ponder_worker.models.model_error import UnsupportedModel
from ponder_worker.models.transformer import Transformer

Kind = Literal["classes", "value", "token"]


@dataclass(frozen=True, slots=True)
class Readout:
    """Turns hidden states into the probability that the text so far is right.

    The kind `classes` is a softmax over the two classes of the model's head, of which the second means "right"
    (Qwen2.5-Math-PRM, https://arxiv.org/abs/2501.07301). `value` is the sigmoid of a single output
    (Skywork-o1-Open-PRM). `token` is a softmax over the logits of the ids `good` and `bad` (Math-Shepherd,
    https://arxiv.org/abs/2312.08935).
    """

    kind: Kind
    good: int = 0
    bad: int = 0

    def check(self, model: Transformer, where: str) -> None:
        """Raises UnsupportedModel if the model has no head of this kind. where: the folder, for the message."""
        wanted = {"classes": 2, "value": 1, "token": None}[self.kind]
        head = model.weights.head
        outputs = len(head[-1][0]) if head else None
        if wanted is not None and outputs != wanted:
            found = "no head" if outputs is None else f"a head of {outputs} outputs"
            raise UnsupportedModel(
                f"{where}: kind {self.kind!r} is not supported by these weights, which have {found}; supported: "
                f"score or v_head.summary with {wanted}"
            )

    def __call__(self, model: Transformer, hidden: torch.Tensor) -> torch.Tensor:
        """Probabilities, float32 `[num_rows]`, from hidden states `[num_rows, hidden]`."""
        if self.kind == "token":
            return model.logits_of(hidden, [self.good, self.bad]).softmax(-1)[:, 0]
        for index, (weight, bias) in enumerate(model.weights.head):
            hidden = F.linear(F.relu(hidden) if index else hidden, weight, bias)
        outputs = hidden.float()
        return outputs.softmax(-1)[:, 1] if self.kind == "classes" else outputs[:, 0].sigmoid()

"""The sparse mixture of a model: feed-forward layers that take the place of one, of which a token is sent to a few."""

from dataclasses import dataclass
from typing import NamedTuple

from ponder_worker.models.checkpoint.folder import Fields


class ExpertNames(NamedTuple):
    """The names of a mixture's tensors: of the module that has the experts, and of their projections."""

    module: str
    gate: str
    up: str
    down: str


@dataclass(frozen=True, slots=True)
class Mixture:
    """A router and its experts (https://arxiv.org/abs/1701.06538).

    num_chosen: experts that each token is sent to. expert_size: the intermediate size of each. normalised: whether the
    weights of the chosen ones sum to 1. layers: `[num_layers]`, whether a layer has the mixture.
    """

    num_experts: int
    num_chosen: int
    expert_size: int
    normalised: bool
    layers: tuple[bool, ...]

    @classmethod
    def of(cls, fields: Fields, num_layers: int, *, normalised: bool) -> "Mixture | None":
        """The mixture of a config; None if no layer has one. normalised: whatever the config says.

        Raises KeyError, TypeError and ValueError for fields that are missing or wrong.
        """
        field = "num_experts" if "num_experts" in fields else "num_local_experts"
        num_experts, num_chosen = int(fields[field]), int(fields["num_experts_per_tok"])
        every, without = int(fields.get("decoder_sparse_step", 1)), fields.get("mlp_only_layers") or []
        layers = tuple((layer + 1) % every == 0 and layer not in without for layer in range(num_layers))
        if not num_experts or not any(layers):
            return None
        if not 0 < num_chosen <= num_experts:
            raise ValueError(f"num_experts_per_tok is {num_chosen}; it must be between 1 and {field}, {num_experts}")
        size = int(fields.get("moe_intermediate_size") or fields["intermediate_size"])
        return cls(num_experts, num_chosen, size, normalised or bool(fields.get("norm_topk_prob", False)), layers)

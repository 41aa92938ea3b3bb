"""search-and-learn's own best_of_n, beam_search and dvts on vLLM: run_search_and_learn.py FOLDER REWARD_FOLDER DTYPE,
with the Python of an environment that has vLLM, and with search-and-learn's `src` on the path.

Reads lines of JSON {approach, n, problems, prm_batch} from standard input, and answers each with {seconds, texts}: the
text that was chosen for each problem. Three things differ from its recipes, because they are the demo models': prompts
have no system message, a step ends with one line break instead of two, and the reward model scores a step by the
probability of its tokens, so that a path's score is the product of its steps'.
"""

import json
import os
import sys
import time
from typing import Any

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")

import torch
from sal.config import Config
from sal.models.reward_models import PRM
from sal.search.beam_search import beam_search
from sal.search.best_of_n import best_of_n
from sal.search.diverse_verifier_tree_search import dvts
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM, SamplingParams

_APPROACHES = {"best_of_n": best_of_n, "beam_search": beam_search, "dvts": dvts}
MAX_TOKENS = 320
CONTEXT = 1024


class LineTokenizer:
    """Renders conversations of the demo's models.

    transformers would drop the line break that ends a step, and the model would then write it again, for ever.
    """

    chat_template: str | None = None

    def apply_chat_template(self, conversations: list[list[dict[str, str]]], **options: Any) -> list[str]:
        return ["".join(map(_rendered, conversation)) for conversation in conversations]


def _rendered(message: dict[str, str]) -> str:
    if message["role"] == "system":
        return ""
    return message["content"] if message["role"] == "assistant" else prompt_of(message["content"])


def prompt_of(problem: str) -> str:
    return " ".join(problem.split()) + "\n"


class LineSteps:
    """vLLM's LLM, whose steps end with one line break."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    def get_tokenizer(self) -> LineTokenizer:
        return LineTokenizer()

    def generate(self, prompts: list[str], sampling_params: SamplingParams, **options: Any) -> Any:
        if sampling_params.stop:
            sampling_params = SamplingParams(
                temperature=sampling_params.temperature,
                top_p=sampling_params.top_p,
                max_tokens=sampling_params.max_tokens,
                stop=["\n"],
                include_stop_str_in_output=True,
            )
        return self._llm.generate(prompts, sampling_params, **options)


class LikelihoodPRM(PRM):
    """Scores each line of an output by the probability of its tokens."""

    def load_model_and_tokenizer(self, folder: str, dtype: str) -> tuple[Any, Any]:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        return model, AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def score(self, questions: list[str], outputs: list[list[str]]) -> list[list[list[float]]]:
        asked = [
            (prompt_of(question), text) for question, texts in zip(questions, outputs, strict=True) for text in texts
        ]
        size, found = self.search_config.prm_batch_size, []
        for first in range(0, len(asked), size):
            found += self._score(asked[first : first + size])
        scores = iter(found)
        return [[next(scores) for _ in texts] for texts in outputs]

    def _score(self, asked: list[tuple[str, str]]) -> list[list[float]]:
        prompts = [self.tokenizer.encode(prompt) for prompt, _ in asked]
        steps = [[self.tokenizer.encode(line) for line in text.splitlines(keepends=True)] for _, text in asked]
        rows = [prompt + [token for step in own for token in step] for prompt, own in zip(prompts, steps, strict=True)]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        logprobs = self.model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
        taken = logprobs[:, :-1].gather(2, ids[:, 1:, None])[:, :, 0]
        found = []
        for row, (prompt, own) in enumerate(zip(prompts, steps, strict=True)):
            scores, place = [], len(prompt) - 1
            for step in own:
                scores.append(float(taken[row, place : place + len(step)].sum().exp()))
                place += len(step)
            found.append(scores or [1.0])
        return found


def main() -> None:
    folder, reward_folder, dtype = sys.argv[1:]
    llm = LLM(
        folder, dtype=dtype, max_model_len=CONTEXT, enable_prefix_caching=True, gpu_memory_utilization=0.2, seed=0
    )
    prm = LikelihoodPRM(Config(), folder=reward_folder, dtype=dtype)
    print(json.dumps({"torch": torch.__version__}), file=sys.__stdout__, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        config = Config(
            approach=asked["approach"],
            n=asked["n"],
            temperature=1.0,
            max_tokens=MAX_TOKENS,
            agg_strategy="prod",
            system_prompt="",
            custom_chat_template=None,
            prm_batch_size=asked["prm_batch"],
            search_batch_size=1 if asked["approach"] == "beam_search" else 25,
        )
        prm.search_config = config
        search, problems, size = _APPROACHES[asked["approach"]], asked["problems"], config.search_batch_size
        began, texts = time.perf_counter(), []
        for first in range(0, len(problems), size):
            texts += search({"problem": problems[first : first + size]}, config, LineSteps(llm), prm)["pred"]
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "texts": texts}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()

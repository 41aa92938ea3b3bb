"""Use the engine without queue, database or server: sixteen samples of one prompt, and the reward model's choice.

It needs only torch and the demo's models, no `ponder up`. The samples compute their prompt once and share its pages.
"""

from pathlib import Path

from ponder_worker import demo
from ponder_worker.engine import Engine, SamplingParams

weights = Path(demo.__file__).parent / "weights"
generator = Engine.load(str(weights / "generator"), num_pages=256)
prompt = generator.tokenizer.render([{"role": "user", "content": "Compute 84 - (3 * (50 - 32) - 6)."}])
samples = [
    generator.generate(prompt, prompt_length=len(prompt), sampling=SamplingParams(max_tokens=100, seed=seed))
    for seed in range(16)
]
while generator.has_work:
    generator.step()

reward = Engine.load(str(weights / "reward"), num_pages=256)
scored = [reward.score(sample.tokens, start=len(prompt)) for sample in samples]
while reward.has_work:
    reward.step()

best = max(range(16), key=lambda number: sum(scored[number].logprobs))
print(generator.tokenizer.decode(samples[best].generated))

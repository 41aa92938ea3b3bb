"""Solve one problem with a beam search, and print the tree that was searched.

`*` marks the path that was chosen, `x` a step that was pruned. The number is the reward model's score of the path.
"""

import io
import json
import time
from typing import Any

from openai import OpenAI

client = OpenAI()
line = {
    "custom_id": "hard",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {
        "model": "demo",
        "messages": [{"role": "user", "content": "Compute 86 + 50 - 65 + (32 + 61) - (35 + 25)."}],
        "max_tokens": 200,
        "seed": 1,
        "ponder": {
            "strategy": {"name": "beam_search", "n": 4, "width": 4},
            "budget": {"tokens": 1500},
            "reference": 104,
        },
    },
}
file = client.files.create(file=("hard.jsonl", io.BytesIO(json.dumps(line).encode())), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)

# The client has no method for what only ponder has, so these calls use paths.
jobs: Any = client.get(f"/batches/{batch.id}/jobs", cast_to=object)
job: Any = client.get(f"/jobs/{jobs['data'][0]['id']}", cast_to=object)
tree = job["tree"]
nodes = tree["nodes"]
chosen, on_path = tree["candidates"][tree["chosen"]]["node"], set()
while chosen >= 0:
    on_path.add(chosen)
    chosen = nodes[chosen]["parent"]


def draw(parent: int, depth: int) -> None:
    for index, node in enumerate(nodes):
        if node["parent"] == parent:
            mark = "*" if index in on_path else "x" if node["state"] == "pruned" else " "
            score = "      " if node["score"] is None else f"{node['score']:6.2f}"
            print(f"{mark} {score} {'  ' * depth}{node['text'].strip()}")
            draw(index, depth + 1)


draw(0, 0)
print(f"answer {job['answer']} ({job['verdict']}), {job['completion_tokens']} tokens in {len(nodes) - 1} steps")

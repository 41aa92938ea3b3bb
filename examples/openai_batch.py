"""Submit a batch with the `openai` package, wait for it, and read answers, verdicts and costs.

Run it against a stack of this machine: `ponder up`, `eval "$(ponder env)"`, `python examples/openai_batch.py`.
"""

import io
import json
import time

from openai import OpenAI

PROBLEMS = {"Compute 7 + 5 * 3.": 22, "Compute 84 - (3 * (50 - 32) - 6).": 36, "Compute 27 - 13.": 14}

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY
lines = [
    {
        "custom_id": f"problem-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "demo",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 200,
            "ponder": {"reference": answer},
        },
    }
    for number, (prompt, answer) in enumerate(PROBLEMS.items(), 1)
]
content = "\n".join(map(json.dumps, lines)).encode()
file = client.files.create(file=("requests.jsonl", io.BytesIO(content)), purpose="batch")
batch = client.batches.create(
    input_file_id=file.id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    extra_body={"ponder": {"strategy": {"name": "best_of_n", "n": 8}, "budget": {"tokens": 2000}}},
)
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)

print(f"{batch.id} is {batch.status}: {batch.request_counts}")
if batch.output_file_id is not None:
    for text in client.files.content(batch.output_file_id).text.splitlines():
        line = json.loads(text)
        ours = line["response"]["body"]["ponder"]
        dollars = ours["cost"]["direct_nanodollars"] / 1e9
        print(f"{line['custom_id']}: {ours['answer']} ({ours['verdict']}), {dollars:.9f} dollars")
if batch.error_file_id is not None:
    print(client.files.content(batch.error_file_id).text)

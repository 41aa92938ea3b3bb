"""Let a search try again while a verifier says no.

Rounding tells roughly what a sum must be, without the answer, so the search may be told: it begins another round under
the same root until an answer lies in that range, or its rounds or its budget are used up. (A verifier that sees the
reference only reports; telling the search would be peeking.)
"""

import io
import json
import time
from typing import Any

from openai import OpenAI

PROBLEMS = {  # each with a pattern for the end of its answer
    "Compute (3 * 74 - 49 - 2 * 21) * 2 - (18 + 80 + 80 - (17 - 1)).": "Answer: (8|9|10|11)[0-9]$",
    "Compute 38 + (24 * 5 - 70) + 5 * (54 + 22 - (9 + 43)).": "Answer: (19|20|21)[0-9]$",
    "Compute 86 + 50 - 65 + (32 + 61) - (35 + 25) + 3 * (41 - 18).": "Answer: (15|16|17|18)[0-9]$",
    "Compute 9 + (98 - 6 + 67) - (36 - 7) - 93 + 4 * (31 - 12).": "Answer: (10|11|12|13)[0-9]$",
}

client = OpenAI()
lines = [
    {
        "custom_id": f"problem-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "demo",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 250,
            "seed": number,
            "ponder": {"verifier": {"name": "regex", "pattern": pattern}},
        },
    }
    for number, (prompt, pattern) in enumerate(PROBLEMS.items(), 1)
]
file = client.files.create(
    file=("rounds.jsonl", io.BytesIO("\n".join(map(json.dumps, lines)).encode())), purpose="batch"
)
batch = client.batches.create(
    input_file_id=file.id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    extra_body={"ponder": {"max_rounds": 6, "budget": {"tokens": 1500}}},
)
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)

jobs: Any = client.get(f"/batches/{batch.id}/jobs", cast_to=object)
for entry in jobs["data"]:
    job: Any = client.get(f"/jobs/{entry['id']}", cast_to=object)
    samples = [node for node in job["tree"]["nodes"] if node["parent"] == 0]
    print(f"{job['custom_id']}: {job['answer'].splitlines()[-1]} ({job['verdict']}) after {len(samples)} round(s)")

"""Run a JSON Lines data set with reference answers, and list the rows whose answer was wrong.

`python examples/data_set.py [FILE [PROMPT_FIELD ANSWER_FIELD]]`; without arguments it takes the problems beside it. A
row that cannot become a request is reported with its line and keeps its place, so no row disappears.
"""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

from openai import OpenAI


def request(number: int, text: str, prompt_field: str, answer_field: str) -> dict[str, Any]:
    """Makes the batch line of one row. A row without the fields becomes a refused line that says so."""
    custom_id = f"row-{number}"
    try:
        row = json.loads(text)
        prompt, answer = row[prompt_field], row[answer_field]
    except (ValueError, KeyError, TypeError) as error:
        message = f"line {number}: {type(error).__name__}: {error}"
        return {"custom_id": custom_id, "error": {"code": "invalid_row", "message": message}}
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 200,
        "ponder": {"reference": answer},
    }
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("problems.jsonl")
fields = tuple(sys.argv[2:4]) if len(sys.argv) > 3 else ("question", "answer")
rows = path.read_text(encoding="utf-8").splitlines()
lines = [request(number, text, *fields) for number, text in enumerate(rows, 1)]

client = OpenAI()
content = "\n".join(map(json.dumps, lines)).encode()
file = client.files.create(file=(path.name, io.BytesIO(content)), purpose="batch")
batch = client.batches.create(
    input_file_id=file.id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    extra_body={"ponder": {"strategy": {"name": "self_consistency", "n": 8}, "verifier": "number"}},
)
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)

num_passed = 0
if batch.output_file_id is not None:
    for text in client.files.content(batch.output_file_id).text.splitlines():
        line = json.loads(text)
        ours = line["response"]["body"]["ponder"]
        num_passed += ours["verdict"] == "passed"
        if ours["verdict"] != "passed":
            print(f"{line['custom_id']}: answered {ours['answer']}, {ours['verdict']}")
if batch.error_file_id is not None:
    for text in client.files.content(batch.error_file_id).text.splitlines():
        line = json.loads(text)
        print(f"{line['custom_id']}: {line['error']['message']}")
print(f"{num_passed} of {len(rows)} rows passed")

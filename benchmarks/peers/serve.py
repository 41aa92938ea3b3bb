"""The loop of a peer's process: a line of JSON in, the case to play; a line out, how long it took.

Answers go to a pipe of their own, because libraries write what they like to standard output.
"""

import json
import os
import resource
import sys
import time

from pattern import Case, Generate, play


def serve(generate: Generate, vocabulary: int, versions: dict[str, str]) -> None:
    """Until standard input ends. The descriptor to answer on is the last argument of the command line."""
    with os.fdopen(int(sys.argv[-1]), "w", buffering=1) as answers:
        answers.write(json.dumps(versions) + "\n")
        for line in sys.stdin:
            asked = json.loads(line)
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                play(Case(*asked["case"]), generate, vocabulary, asked["seed"])
            except Exception as error:  # the peer's: it is written down instead of a figure
                answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}) + "\n")
                continue
            found = {
                "wall_s": time.perf_counter() - wall,
                "cpu_s": time.process_time() - cpu,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            answers.write(json.dumps(found) + "\n")

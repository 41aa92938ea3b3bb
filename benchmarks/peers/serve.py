"""The loop of a peer's process. It reads a case as a line of JSON, plays it, and answers with a line of figures.

Answers go to a separate pipe, because libraries write to standard output.
"""

import json
import os
import resource
import sys
import time

from pattern import Case, Generate, play


def serve(generate: Generate, vocabulary: int, versions: dict[str, str]) -> None:
    """Serves until standard input ends. The last argument of the command line is the descriptor for answers."""
    with os.fdopen(int(sys.argv[-1]), "w", buffering=1) as answers:
        answers.write(json.dumps(versions) + "\n")
        for line in sys.stdin:
            asked = json.loads(line)
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                play(Case(*asked["case"]), generate, vocabulary, asked["seed"])
            except Exception as error:  # an error of the peer is reported in place of figures
                answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}) + "\n")
                continue
            found = {
                "wall_s": time.perf_counter() - wall,
                "cpu_s": time.process_time() - cpu,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            answers.write(json.dumps(found) + "\n")

"""Renders the Helm chart with the values on stdin, and validates its manifests by the schemas of Kubernetes.

It runs with the Python of an environment that has the extra `charts`:  python render_chart.py CHART < SETS

SETS is a JSON object of values by name. Prints a JSON object by the same names: the `manifests` with the notes, what
Kubernetes would refuse (`refused`), the kinds that it has no schema for (`unknown`), and the `error` of rendering.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import kubernetes_validate
import yaml
from helm_python.chart import Chart
from helm_python.errors import HelmError

VERSIONS = ("1.27", "1.37")
"""The oldest that Chart.yaml allows, and the newest that there is a schema for."""


def rendered(chart: Chart, values: dict[str, Any]) -> dict[str, Any]:
    try:
        files = chart.render(values=values, name="ponder", namespace="ai")
    except HelmError as error:
        return {"error": str(error)}
    texts = [text for name, text in files.items() if not name.endswith("NOTES.txt")]
    manifests = [one for text in texts for one in yaml.safe_load_all(text) if one]
    found: dict[str, Any] = {"manifests": manifests, "refused": [], "unknown": [], "error": None}
    for manifest in manifests:
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found["refused"].append(f"{what} ({version}): {'.'.join(map(str, error.path))}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError:
                found["unknown"].append(manifest["kind"])
    return found


if __name__ == "__main__":
    with Chart.load(sys.argv[1]) as chart:
        print(json.dumps({name: rendered(chart, values) for name, values in json.load(sys.stdin).items()}))

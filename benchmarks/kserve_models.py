"""Compares a chart's InferenceServices with the models of the package `kserve`, which needs an environment of its own.

    python -m venv kserve && kserve/bin/pip install kserve helm-python-sdk
    kserve/bin/python benchmarks/kserve_models.py CHART

A field that KServe does not know, or a value of another type, is named. Exit status 1: there was one.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import helm_python
import kserve
import yaml
from kubernetes import client


def main() -> None:
    """Compare one chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chart", type=Path, help="folder that optkit chart has written")
    with helm_python.Chart.load(parser.parse_args().chart) as chart:
        made = chart.render({"kserve": {"enabled": True}}, name="models", namespace="default")
    every = [one for text in made.values() for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    services = [one for one in every if one.get("kind") == "InferenceService"]
    lost = [path for one in services for path in differences(one, read(one), one["metadata"]["name"])]
    print(f"{len(services)} InferenceServices, kserve {kserve.__version__}: {', '.join(lost) or 'every field is known'}")
    sys.exit(1 if lost or not services else 0)


def read(document: dict[str, Any]) -> Any:
    """What KServe's models make of a document."""
    api = client.ApiClient()
    known = {name: model for name, model in vars(kserve).items() if isinstance(model, type)}
    client.models.__dict__.update(known)  # where the client looks its types up
    model = api.deserialize(SimpleNamespace(data=json.dumps(document)), "V1beta1InferenceService")
    return api.sanitize_for_serialization(model)


def differences(given: Any, found: Any, path: str) -> list[str]:
    """Paths of what was given and is not found."""
    if isinstance(given, dict) and isinstance(found, dict):
        return [line for name, one in given.items() for line in differences(one, found.get(name), f"{path}.{name}")]
    if isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        return [line for number, one in enumerate(given) for line in differences(one, found[number], f"{path}[{number}]")]
    return [] if given == found or given in ({}, []) else [path]


if __name__ == "__main__":
    main()

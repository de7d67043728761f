"""Compares a chart's InferenceServices with the models of the package `kserve`, which needs an environment of its own.

    python -m venv kserve && kserve/bin/pip install kserve==0.21.0 helm-python-sdk
    kserve/bin/python benchmarks/kserve_models.py CHART

A field that KServe does not know, or a value of another type, is named. Exit status 1: there was one.
"""

import argparse
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import helm_python
import kserve
import kubernetes.client
import yaml

PLAIN = {"str": str, "int": int, "bool": bool, "object": object}


def main() -> None:
    """Compare one chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chart", type=Path, help="folder that optkit chart has written")
    with helm_python.Chart.load(parser.parse_args().chart) as chart:
        made = chart.render({"kserve": {"enabled": True}}, name="models", namespace="default")
    every = [one for text in made.values() for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    services = [one for one in every if one.get("kind") == "InferenceService"]
    lost = [path for one in services for path in unknown(one, "V1beta1InferenceService", one["metadata"]["name"])]
    print(f"{len(services)} InferenceServices, kserve {version('kserve')}: {', '.join(lost) or 'every field is known'}")
    sys.exit(1 if lost or not services else 0)


def unknown(given: Any, kind: str, path: str) -> list[str]:
    """Paths of what a type of KServe's does not know.

    Args:
        given: part of a document.
        kind: its type, as KServe's models write it.
        path: of the part.
    """
    if many := re.fullmatch(r"list\[(.+)\]", kind):
        return [line for number, one in enumerate(given) for line in unknown(one, many[1], f"{path}[{number}]")]
    if many := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return [line for name, one in given.items() for line in unknown(one, many[1], f"{path}.{name}")]
    if kind in PLAIN:
        return [] if isinstance(given, PLAIN[kind]) else [path]
    own = getattr(kserve, kind, None)
    if own is None:  # Kubernetes' own, whose names KServe writes with their package
        theirs = getattr(kubernetes.client, re.sub(r"^K8sIo\w*?(?=V\d)", "", kind))
        found = kubernetes.client.ApiClient().sanitize_for_serialization(theirs.from_dict(given))
        return differences(given, found, path)
    names = {name: field for field, name in own.attribute_map.items()}
    found = [f"{path}.{name}" for name in given if name not in names]
    known = [name for name in given if name in names]
    return found + [
        line for name in known for line in unknown(given[name], own.openapi_types[names[name]], f"{path}.{name}")
    ]


def differences(given: Any, found: Any, path: str) -> list[str]:
    """Paths of what was given and is not found."""
    if isinstance(given, dict) and isinstance(found, dict):
        return [line for name, one in given.items() for line in differences(one, found.get(name), f"{path}.{name}")]
    if isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        return [line for number, one in enumerate(given) for line in differences(one, found[number], f"{path}[{number}]")]
    return [] if given == found or given in ({}, []) else [path]


if __name__ == "__main__":
    main()

"""Process of one peer of `peers.py`: makes it, then answers requests, a line of JSON each.

    python peer_worker.py NAME SETTINGS.json

Requests: {"do": "embed", "to": FILE.npy}, {"do": "time", "shape": [batch, tokens], "calls": N}, {"do": "texts"}. What
libraries print goes to standard error.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from peer_kinds import Peer, Settings, make


def main() -> None:
    """Answer until the requests end."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    name, settings = sys.argv[1], Settings.read(Path(sys.argv[2]))
    try:
        peer = make(name, settings)
        print(json.dumps({"size_mb": peer.megabytes, "note": peer.note}), file=answers)
        for line in sys.stdin:
            print(json.dumps(answer(peer, settings, json.loads(line))), file=answers)
    except Exception as error:  # whatever a library raises is the finding
        traceback.print_exc()
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=answers)


def answer(peer: Peer, settings: Settings, asked: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked for."""
    if asked["do"] == "embed":
        np.save(asked["to"], peer.encode(settings.texts))
        return {}
    if asked["do"] == "texts":
        started = time.perf_counter()
        peer.encode(settings.timed)
        return {"texts_per_s": len(settings.timed) / (time.perf_counter() - started)}
    batch, tokens = asked["shape"]
    return {"ms": [timed_ms(peer, batch, tokens) for _ in range(asked["calls"])]}


def timed_ms(peer: Peer, batch: int, tokens: int) -> float:
    """Milliseconds of one batch without padding, from tokens to vectors."""
    ids = np.random.default_rng(0).integers(1000, 20_000, (batch, tokens))
    mask = np.ones_like(ids)
    started = time.perf_counter()
    peer.forward(ids, mask)
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main()

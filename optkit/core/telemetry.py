"""Switches off what libraries tell others, look up and store by themselves; called once, before any of them is imported.

Whoever starts a process hands its environment on, and each of optkit's processes, the server's too, imports `optkit` first.
What was set by hand stays.
"""

import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from optkit.core.cache_folder import cache_folder

OFF = {
    # a thread that uploads events, and a database and an identifier of this device below ~/.cache/Microsoft
    "ORT_DISABLE_TELEMETRY": "1",
    # what `transformers` and others send of their use, and a look-up of who has started the process
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # a count of the data sets that are read
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    # what a cluster of Ray's that is started here reports of itself
    "RAY_USAGE_STATS_ENABLED": "0",
    # https://donottrack.sh, which Ray, MLflow and others heed: plug-ins may import them
    "DO_NOT_TRACK": "1",
}
_OPENVINO = "openvino_telemetry"


def switch_off(environment: MutableMapping[str, str], modules: MutableMapping[str, Any] = sys.modules) -> None:
    """Set what the libraries heed.

    Args:
        environment: of this process.
        modules: that this process has imported.
    """
    for name, value in OFF.items():
        environment.setdefault(name, value)
    # OpenVINO asks Google Analytics when it is imported, keeps an identifier in ~/intel, and has no variable against it; it
    # goes without the package where that cannot be imported, which None says.
    modules.setdefault(_OPENVINO, None)
    # made when torch is imported, by default in /tmp
    own_folder(environment, "TORCHINDUCTOR_CACHE_DIR", "torchinductor")


def own_folder(environment: MutableMapping[str, str], variable: str, name: str) -> None:
    """Have a library keep its files in optkit's cache, unless the variable says where; without a home where it will."""
    with suppress(RuntimeError):
        environment.setdefault(variable, str(cache_folder() / name))

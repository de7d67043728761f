"""What is set before a library is imported, and that a choice made by hand stays."""

import subprocess
import sys

from optkit.core import telemetry


def test_every_variable_is_set_and_what_was_set_by_hand_stays() -> None:
    environment, modules = {"DO_NOT_TRACK": "0", "TORCHINDUCTOR_CACHE_DIR": "/elsewhere"}, {}
    telemetry.switch_off(environment, modules)
    assert environment == {**telemetry.OFF, "DO_NOT_TRACK": "0", "TORCHINDUCTOR_CACHE_DIR": "/elsewhere"}
    assert modules == {"openvino_telemetry": None}


def test_a_package_that_is_imported_already_stays() -> None:
    modules = {"openvino_telemetry": object()}
    before = dict(modules)
    telemetry.switch_off({}, modules)
    assert modules == before


def test_importing_optkit_switches_it_off_before_anything_else_is_imported() -> None:
    code = (
        "import optkit, os, sys\n"
        "assert not {'onnxruntime', 'openvino', 'torch', 'huggingface_hub'} & sys.modules.keys()\n"
        f"assert all(name in os.environ for name in {list(telemetry.OFF)!r})\n"
        "import huggingface_hub.constants as hub, openvino\n"
        "assert hub.HF_HUB_DISABLE_TELEMETRY\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_home_folder_it_can_be_imported_all_the_same(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", _no_home)
    environment: dict[str, str] = {}
    telemetry.switch_off(environment, {})
    assert environment == telemetry.OFF


def _no_home() -> None:
    raise RuntimeError("Could not determine home directory.")

"""A server's ticket is its user's alone, and goes with the server."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from optkit.core.errors import MachineError
from optkit.serving import ticket
from optkit.serving.server import Server
from optkit.serving.ticket import Ticket

HOLD = """
import sys, time
from optkit.serving.ticket import Ticket, held
with held(int(sys.argv[1]), Ticket("killed", "s", sys.argv[2], None)) as place:
    print(place, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folder(tmp_path, name):
    made = tmp_path / f"{ticket.SOCKETS}{name}"
    made.mkdir()
    return made


def test_it_is_found_by_port_and_name(tmp_path):
    drawn = Ticket("mine", "secret", str(folder(tmp_path, "sockets")), None)
    with ticket.held(8000, drawn) as place:
        assert stat.S_IMODE(place.stat().st_mode) == 0o600 and stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        assert ticket.find("127.0.0.1:8000", "mine") == ticket.find("localhost:8000", "mine") == drawn
        others = [
            ("127.0.0.1:8000", "another's"),
            ("127.0.0.1:8001", "mine"),
            ("example.org:8000", "mine"),
            ("127.0.0.1", "mine"),
        ]
        assert [ticket.find(*one) for one in others] == [None] * 4
    assert ticket.find("127.0.0.1:8000", "mine") is None and not os.path.exists(drawn.folder)


@pytest.mark.parametrize("port", [8000, 8001])
def test_what_a_killed_server_left_is_removed_by_the_next(port, tmp_path):
    left, live = folder(tmp_path, "left"), folder(tmp_path, "live")
    with ticket.held(7000, Ticket("live", "s", str(live), None)) as other:
        process = subprocess.Popen([sys.executable, "-c", HOLD, "8000", str(left)], stdout=subprocess.PIPE, text=True)
        place = process.stdout.readline().strip()
        assert os.path.exists(place) and left.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        (other.parent / "half.unfinished").write_text('{"iden')
        with ticket.held(port, Ticket("next", "s", str(folder(tmp_path, "next")), None)) as mine:
            assert not left.exists() and live.exists()
            assert {path.name for path in mine.parent.iterdir()} == {other.name, mine.name, "lock"}
            assert ticket.read(other).identity == "live" and ticket.read(mine).identity == "next"


def test_a_server_without_a_place_for_it_says_where(toy_repository, tmp_path):
    (tmp_path / "cache" / "optkit").mkdir(parents=True)
    (tmp_path / "cache" / "optkit" / "servers").touch()
    with pytest.raises(MachineError, match=r"optkit/servers/.*\.json: cannot be written"):
        Server(toy_repository, tmp_path / "logs").__enter__()

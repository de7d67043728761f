"""Runs a command in a network of its own and writes down what it would have sent elsewhere.

    unshare --map-root-user --net python alone.py REPORT COMMAND…

The network has the loopback interface alone, and every route leads there: a look-up or a connection to another machine is
sent, seen and never answered.
"""

import ctypes
import fcntl
import ipaddress
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TextIO

SIOCADDRT, SIOCSIFFLAGS = 0x890B, 0x8914
UP = 1
ETH_P_ALL = 3
UDP, DNS = 17, 53
ANY = struct.pack("=HH4s8x", socket.AF_INET, 0, bytes(4))


def main(report: Path, command: list[str]) -> int:
    """Run the command; the report gets a line for each packet to another machine or to a name server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", UP))
        device = ctypes.create_string_buffer(b"lo")
        # struct rtentry: padding, destination, gateway, mask, flags, padding, metric, device, limits
        route = struct.pack("@L16s16s16sHhLPhPLLH0L", 0, ANY, ANY, ANY, UP, 0, 0, 0, 0, ctypes.addressof(device), 0, 0, 0)
        fcntl.ioctl(control, SIOCADDRT, route)
    watched = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    with report.open("w", buffering=1) as file:
        threading.Thread(target=_watch, args=(watched, file), daemon=True).start()
        return subprocess.run(command, check=False).returncode


def _watch(watched: socket.socket, file: TextIO) -> None:
    while True:
        packet = watched.recv(2048)
        if packet[0] >> 4 != 4:
            continue
        header = 4 * (packet[0] & 15)
        target, port = ipaddress.ip_address(packet[16:20]), int.from_bytes(packet[header + 2 : header + 4])
        if not target.is_loopback or (packet[9] == UDP and port == DNS):
            print(target, port, packet[header:], file=file)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

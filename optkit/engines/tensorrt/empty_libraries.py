"""Empty shared libraries, written byte by byte, so that TensorRT's Python bindings can be loaded without `libnvinfer`.

The bindings ask the loader for `libnvinfer.so.N` and two companions by name. Where another library brings the functions
(see `library`), a library of that name with nothing in it satisfies the loader. ELF is laid out as in the System V ABI
(gabi 4.1, x86-64 psABI 1.0); no compiler is needed.
"""

import struct
from collections.abc import Sequence

_PAGE = 0x1000
_RETURN_1 = b"\xb8\x01\x00\x00\x00\xc3\x90\x90"
"""mov eax, 1; ret."""
_SYMBOL_BYTES = 24
_HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 4, 5, 6, 10, 11, 14  # DT_* of the dynamic section


def shared_library(soname: str, functions: Sequence[str] = ()) -> bytes:
    """An x86-64 Linux shared library.

    Args:
        soname: the name that the loader knows it by.
        functions: names of the functions in it; each takes anything and returns 1.
    """
    strings, offsets = b"\0", []
    for name in (soname, *functions):
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    at_code = 64 + 3 * 56
    at_hash = at_code + len(_RETURN_1)
    table = _hash_table(len(functions))
    at_symbols = _aligned(at_hash + len(table), 8)
    symbols = bytes(_SYMBOL_BYTES) + b"".join(_function(offset, at_code) for offset in offsets[1:])
    at_strings = at_symbols + len(symbols)
    end = at_strings + len(strings)
    at_dynamic = _aligned(end, _PAGE)
    entries = [
        (_SONAME, offsets[0]),
        (_HASH, at_hash),
        (_STRTAB, at_strings),
        (_SYMTAB, at_symbols),
        (_STRSZ, len(strings)),
        (_SYMENT, _SYMBOL_BYTES),
        (0, 0),
    ]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    parts = {
        0: _header() + _segments(end, at_dynamic, len(dynamic)),
        at_code: _RETURN_1,
        at_hash: table,
        at_symbols: symbols,
        at_strings: strings,
        at_dynamic: dynamic,
    }
    image = bytearray(at_dynamic + len(dynamic))
    for offset, part in parts.items():
        image[offset : offset + len(part)] = part
    return bytes(image)


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _hash_table(count: int) -> bytes:
    """One bucket, and every symbol chained to the next."""
    chain = [0, *(number + 1 if number < count else 0 for number in range(1, count + 1))]
    return struct.pack(f"<III{count + 1}I", 1, count + 1, min(1, count), *chain)


def _function(name: int, address: int) -> bytes:
    """A global function, defined in section 1 as far as anybody asks."""
    return struct.pack("<IBBHQQ", name, 1 << 4 | 2, 0, 1, address, len(_RETURN_1))


def _header() -> bytes:
    """64-bit, little-endian, a shared object (3) for x86-64 (62), three program headers after this one."""
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    return identity + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)


def _segments(end: int, at_dynamic: int, dynamic_bytes: int) -> bytes:
    """Code and tables, read and executed; the dynamic section, which the loader writes into."""
    tables = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, _PAGE)
    place = (at_dynamic, at_dynamic, at_dynamic, dynamic_bytes, dynamic_bytes)
    return tables + struct.pack("<IIQQQQQQ", 1, 6, *place, _PAGE) + struct.pack("<IIQQQQQQ", 2, 6, *place, 8)

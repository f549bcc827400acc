"""Runs the tests of one solution: three kinds of processes.

The judge (the first process) knows the tests, and never runs the solution's code. The loader, its child,
is forked before the judge has read anything; it loads the solution. For each test the loader forks a
process that is sent the test, with a nonce to sign its outcome with, over a pipe. The judge reads the
outcomes, keeps the time, and reports on descriptor 3, which only the judge holds.

Whatever could have been redefined by the solution is looked up before it is loaded.
"""

import sys

HERE = sys.path.pop(0)  # a file of the box must not stand in for a module of Python's

import builtins
import gc
import marshal
import posix
import select
import time

REPORT = 3
MOST_VALUE_BYTES = 16 << 20
MOST_LINE_BYTES = 16 << 10
MOST_TEXT_CHARACTERS = 200
MOST_DEPTH = 200
# How long a killed test may take to be gone.
KILL_BOUND = 5.0
ONLY_AST = 0x400
PR_SET_DUMPABLE = 4
NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


def oneline(text):
    """For people: one short line, without tabs."""
    text = text[:MOST_TEXT_CHARACTERS]
    for old in "\t\r\n":
        text = text.replace(old, " ")
    return text.encode("utf-8", "backslashreplace")


def described(error, type=type, str=str, oneline=oneline):
    """An exception's type and text; what fails has none."""
    try:
        name = oneline(type.__dict__["__name__"].__get__(type(error)))
    except BaseException:
        name = b"?"
    try:
        text = oneline(str.__getitem__(str(error), slice(None)))
    except BaseException:
        text = b""
    return name, text


def write_all(fd, data, write=posix.write):
    data = memoryview(data)
    while data:
        data = data[write(fd, data) :]


def take(fd, count, read=posix.read):
    """Exactly so many bytes; less at the end of the pipe."""
    parts = []
    while count:
        part = read(fd, min(count, 1 << 20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def message(body):
    return b"%010d" % len(body) + body


def take_message(fd, take=take, int=int):
    return take(fd, int(take(fd, 10) or 0))


# Plain data, as bytes that are safe to read whoever has written them.


class NotPlain(Exception):
    pass


def plain_encoder():
    plain_int, plain_float, plain_complex, plain_str = int, float, complex, str
    kinds = [
        (bool, lambda v: b"T" if v else b"F"),
        (int, lambda v: b"i%x;" % v if v >= 0 else b"j%x;" % -v),
        (float, lambda v: b"f" + plain_float.hex(v).encode() + b";"),
        (complex, lambda v: b"c" + plain_float.hex(v.real).encode() + b";" + plain_float.hex(v.imag).encode() + b";"),
        (str, lambda v: (lambda b: b"s%d;" % len(b) + b)(plain_str.encode(v, "utf-8", "surrogatepass"))),
        (bytes, lambda v: b"b%d;" % len(v) + v),
    ]
    sequences = [(list, b"l"), (tuple, b"t"), (set, b"S"), (frozenset, b"Z"), (dict, b"d")]
    exact = dict(kinds)
    exact_sequence = dict(sequences)
    # What a subclass holds, without asking the subclass.
    bases = [
        (int, lambda v: plain_int.__add__(v, 0)),
        (float, lambda v: plain_float.__add__(v, 0.0)),
        (complex, lambda v: plain_complex.__add__(v, 0j)),
        (str, lambda v: plain_str.__getitem__(v, slice(None))),
        (bytes, lambda v: bytes.__getitem__(v, slice(None))),
        (bytearray, lambda v: b"".join([bytearray.__getitem__(v, slice(None))])),
        (list, lambda v: list(list.__iter__(v))),
        (tuple, lambda v: tuple(tuple.__iter__(v))),
        (dict, lambda v: dict(dict.items(v))),
        (set, lambda v: set(set.__iter__(v))),
        (frozenset, lambda v: frozenset(frozenset.__iter__(v))),
    ]
    get_type, is_subclass, get_name = type, issubclass, type.__dict__["__name__"].__get__

    def encode(value, out, depth=0):
        kind = get_type(value)
        if value is None:
            out.append(b"N")
        elif kind in exact:
            out.append(exact[kind](value))
        elif depth == MOST_DEPTH:
            raise NotPlain("the value is nested more than %d deep" % MOST_DEPTH)
        elif kind in exact_sequence:
            items = [item for pair in value.items() for item in pair] if kind is dict else value
            out.append(exact_sequence[kind] + b"%d;" % len(items))
            for item in items:
                encode(item, out, depth + 1)
        else:
            for base, plain in bases:
                if is_subclass(kind, base):
                    return encode(plain(value), out, depth + 1)
            if kind.__module__ == "numpy":
                return encode(value.tolist(), out, depth + 1)
            raise NotPlain("the value is a %s, which is no plain data" % get_name(kind))

    return encode


def decode(data):
    at = 0

    def number():
        nonlocal at
        end = data.index(b";", at)
        text, at = data[at:end].decode("ascii"), end + 1
        return text

    def raw():
        nonlocal at
        count = int(number())
        end = at + count
        if count < 0 or end > len(data):
            raise ValueError("cut off")
        part, at = data[at:end], end
        return part

    def value(depth):
        nonlocal at
        kind, at = data[at : at + 1], at + 1
        if kind in (b"N", b"T", b"F"):
            return {b"N": None, b"T": True, b"F": False}[kind]
        if kind in (b"i", b"j"):
            magnitude = int(number(), 16)
            return magnitude if kind == b"i" else -magnitude
        if kind == b"f":
            return float.fromhex(number())
        if kind == b"c":
            return complex(float.fromhex(number()), float.fromhex(number()))
        if kind == b"s":
            return raw().decode("utf-8", "surrogatepass")
        if kind == b"b":
            return raw()
        make = {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset, b"d": dict}.get(kind)
        if make is None or depth > MOST_DEPTH:
            raise ValueError("no plain data")
        count = int(number())
        if not 0 <= count <= len(data):
            raise ValueError("cut off")
        items = [value(depth + 1) for _ in range(count)]
        return dict(zip(items[::2], items[1::2])) if make is dict else make(items)

    result = value(0)
    if at != len(data):
        raise ValueError("more than a value")
    return result



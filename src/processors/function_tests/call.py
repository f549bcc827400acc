"""Calls a function of solution.py and writes what it returns, as data, on standard output.

What the program itself prints goes to standard error: nothing else is on standard output, and what is
there is compared in another process. The task is read from standard input.
"""

import ast
import json
import os
import sys
import types

# What published solutions may use without importing it.
PRELUDE = """
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from copy import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from re import *
from string import *
from typing import *
import builtins
pow, print, sum, min, max, abs, open = (
    builtins.pow, builtins.print, builtins.sum, builtins.min, builtins.max, builtins.abs, builtins.open)
"""


def encoded(value):
    """Plain data as JSON, with the type of what JSON does not know."""
    if value is None or isinstance(value, (bool, str)):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int):
        # Of any length; decimal digits are limited.
        return {"i": hex(value)}
    if isinstance(value, float):
        return {"f": float.__repr__(value)}
    if isinstance(value, complex):
        return {"c": [float.__repr__(value.real), float.__repr__(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, tuple):
        return {"t": [encoded(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"s": [encoded(item) for item in value]}
    if isinstance(value, dict):
        return {"d": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encoded(value.tolist())
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is no plain data: it cannot be compared outside")


def whole_keys(value):
    """JSON has no numbers as keys: where all keys of an object are digits, they were numbers."""
    try:
        return {int(key): item for key, item in value.items()} if isinstance(value, dict) else value
    except ValueError:
        return value


def evaluated(source, namespace):
    """The value of the last expression, after the statements before it."""
    tree = ast.parse(source)
    *before, last = tree.body
    if not isinstance(last, ast.Expr):
        raise SyntaxError("the call does not end with an expression")
    exec(compile(ast.Module(before, []), "<call>", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "<call>", "eval"), namespace)


def loaded(task):
    module = types.ModuleType("solution")
    module.__file__ = os.path.abspath("solution.py")
    sys.modules["solution"] = module
    if task.get("prelude"):
        exec(PRELUDE, module.__dict__)
    exec(task.get("setup", ""), module.__dict__)
    with open("solution.py", "rb") as file:
        source = file.read()
    exec(compile(source, module.__file__, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def called(task, namespace):
    if "call" in task:
        return evaluated(task["call"], namespace)
    arguments = task["arguments"]
    if task.get("apps") and arguments:
        arguments = [whole_keys(arguments[0]), *arguments[1:]]
    name = task["function"]
    owner = namespace["Solution"]() if "Solution" in namespace else None
    function = getattr(owner, name) if hasattr(owner, name) else namespace[name]
    return function(*arguments)


def main():
    result = os.dup(1)
    os.dup2(2, 1)
    task = json.loads(sys.stdin.buffer.read())
    namespace = loaded(task)
    value = called(task, namespace)
    if "inside" in task:
        told = {"inside": bool(value == evaluated(task["inside"], namespace))}
    else:
        told = encoded(value)
    with os.fdopen(result, "w", encoding="ascii") as file:
        json.dump(told, file)


main()

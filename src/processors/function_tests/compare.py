"""Compares returned values with the expected ones. The code that returned them never runs here.

Reads {"setup": ..., "items": [...]} and writes, for each item: a line once its expected value is there, and a
line with what came of it. A value may be anything that can be written down, also on purpose: whatever it
does to the comparison is its own fault, and so comes behind the first line.
"""

import ast
import json
import sys


class Unreadable(Exception):
    pass


def decoded(text):
    if text is None or isinstance(text, (bool, str)):
        return text
    if isinstance(text, list):
        return [decoded(item) for item in text]
    if not isinstance(text, dict) or len(text) != 1:
        raise Unreadable("no value")
    (kind, value), = text.items()
    if kind == "i":
        return int(value, 16)
    if kind == "f":
        return float(value)
    if kind == "c":
        return complex(float(value[0]), float(value[1]))
    if kind == "b":
        return bytes.fromhex(value)
    if kind == "t":
        return tuple(decoded(item) for item in value)
    if kind == "s":
        return frozenset(decoded(item) for item in value)
    if kind == "d":
        return {decoded(key): decoded(item) for key, item in value}
    raise Unreadable("no value")


def as_json(value):
    """What JSON would make of it: tuples are lists, numbers as keys are texts."""
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): as_json(item) for key, item in value.items()}
    return value


def lists(value):
    """Tuples are lists."""
    if isinstance(value, (list, tuple)):
        return [lists(item) for item in value]
    return value


def whole_keys(value):
    try:
        return {int(key): item for key, item in value.items()} if isinstance(value, dict) else value
    except ValueError:
        return value


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(value, expected, absolute, relative):
    if number(value) and number(expected) and (isinstance(value, float) or isinstance(expected, float)):
        if value == expected:
            return True
        apart = abs(value - expected)
        return apart <= absolute or (
            apart != float("inf") and apart <= relative * max(abs(value), abs(expected)))
    if isinstance(value, (list, tuple)) and type(value) is type(expected):
        return len(value) == len(expected) and all(
            same(one, other, absolute, relative) for one, other in zip(value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(
            same(item, expected[key], absolute, relative) for key, item in value.items())
    return value == expected


def evaluated(source, namespace):
    tree = ast.parse(source)
    *before, last = tree.body
    if not isinstance(last, ast.Expr):
        raise SyntaxError("it does not end with an expression")
    exec(compile(ast.Module(before, []), "<expected>", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "<expected>", "eval"), namespace)


def is_call(source):
    tree = ast.parse(source)
    return bool(tree.body) and isinstance(tree.body[-1], ast.Expr)


def shown(value):
    text = repr(value)
    return text if len(text) <= 120 else text[:120] + "…"


def tell(**told):
    print(json.dumps(told), flush=True)


def expected_of(item, setup):
    """The value, or None and what is wrong with the row."""
    if "call" in item:
        try:
            if not is_call(item["call"]):
                return None, "call does not end with an expression"
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return None, f"call is no Python: {error}"
    if "value" not in item:
        return None, None
    if "json" in item:
        return json.loads(item["json"]), None
    namespace = {}
    try:
        exec(setup, namespace)
        return evaluated(item["code"], namespace), None
    except BaseException as error:
        return None, f"expected_code cannot be evaluated: {type(error).__name__}: {error}"


def compared(item, expected):
    value = decoded(json.loads(item["value"]))
    if item.get("apps"):
        value, candidates = lists(value), [whole_keys(expected)]
        if isinstance(expected, list) and expected:
            candidates.append(whole_keys(expected[0]))
    elif "json" in item:
        value, candidates = as_json(value), [expected]
    else:
        candidates = [expected]
    near = (item["absolute"], item["relative"])
    equal = any(same(value, candidate, *near) for candidate in candidates)
    return equal, "" if equal else f"expected {shown(expected)}, got {shown(value)}"


def main():
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    task = json.loads(sys.stdin.buffer.read())
    for item in task["items"]:
        expected, wrong = expected_of(item, task["setup"])
        if wrong is not None:
            return tell(wrong=wrong, index=item["index"])
        tell(index=item["index"])
        if "value" not in item:
            continue
        try:
            equal, detail = compared(item, expected)
        except Exception as error:
            equal, detail = False, f"what came cannot be compared: {type(error).__name__}"
        tell(equal=equal, detail=detail)


main()

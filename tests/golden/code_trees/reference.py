"""The meaning that `evalmill::code_trees` is held against, over CPython's own `ast`.

Written from the contract of the functions, with `ast.parse` and `ast.unparse`. As a program it answers lines
of standard input, each a JSON list of requests `{"op": NAME, ...}`, with a line of as many answers.
"""

import ast
import gzip
import json
import sys
import time
import warnings

warnings.simplefilter("ignore")
# What these raise for text that is no program.
REFUSED = (SyntaxError, ValueError, RecursionError, MemoryError, UnicodeError)


def expression(text):
    """The one expression that `text` is. Space around it is no indent."""
    body = ast.parse(text.removeprefix("\ufeff").strip(" \t\r\n")).body
    if len(body) != 1 or not isinstance(body[0], ast.Expr) or isinstance(body[0].value, ast.Starred):
        raise SyntaxError("not one expression")
    return body[0].value


def convert_call_to_assert(call, expected, requires_float):
    """The module whose last expression has become an assertion."""
    module = ast.parse(call.removeprefix("\ufeff"))
    if not module.body:
        raise SyntaxError("no statement")
    last = module.body[-1]
    if isinstance(last, ast.Assert):
        return module
    if not isinstance(last, ast.Expr) or isinstance(last.value, ast.Starred):
        raise SyntaxError("not a call")
    value = expression(expected)
    if requires_float:
        difference = ast.BinOp(last.value, ast.Sub(), value)
        left = ast.Call(ast.Name("abs", ast.Load()), [difference], [])
        test = ast.Compare(left, [ast.Lt()], [ast.Constant(1e-06)])
    else:
        test = ast.Compare(last.value, [ast.Eq()], [value])
    module.body[-1] = ast.Assert(test, None)
    return ast.fix_missing_locations(module)


def wrap_assert_in_try_print(call, expected, requires_float, texts):
    module = convert_call_to_assert(call, expected, requires_float)
    def printed(text):
        return ast.parse(f"print({text})").body
    handlers = [ast.ExceptHandler(ast.Name("AssertionError", ast.Load()), None, printed(texts["fail"]))]
    for kind, text in texts["exceptions"]:
        handlers.append(ast.ExceptHandler(expression(kind), "e", printed(text)))
    module.body = [ast.Try(module.body + printed(texts["pass"]), handlers, [], [])]
    return ast.fix_missing_locations(module)


def is_simple_test_case(tree):
    first = tree.body[0] if tree.body else None
    if not isinstance(first, ast.Assert) or not isinstance(first.test, ast.Compare):
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(first.test.left))


def get_global_imports(tree):
    return [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]


def attempt(make):
    """What `make` gives, or `None` where the text is refused."""
    try:
        return make()
    except REFUSED:
        return None


def dump(tree):
    return None if tree is None else ast.dump(tree)


def parsed(text):
    """Read as a string and, where it matters, as the bytes of a file."""
    tree = attempt(lambda: ast.parse(text))
    as_file = attempt(lambda: ast.parse(text.encode()))
    if dump(tree) != dump(as_file):
        return ast.parse("'read differently from a file'")
    return tree


def wanted(request):
    """The tree that the reference gives for a request, or `None`."""
    arguments = request["call"], request["expected"], request["float"]
    if texts := request.get("texts"):
        return attempt(lambda: wrap_assert_in_try_print(*arguments, texts))
    return attempt(lambda: convert_call_to_assert(*arguments))


def same(request):
    """Whether `ours` means what the reference gives; `golden` is what it once gave, as text."""
    tree = wanted(request)
    answer = {"accepted": tree is not None, "same": None}
    if request.get("ours") is not None:
        ours = dump(attempt(lambda: parsed(request["ours"])))
        answer["same"] = tree is not None and ours == dump(tree)
        if request.get("golden") is not None:
            answer["same"] = answer["same"] and ours == dump(ast.parse(request["golden"]))
    return answer


def valid(request):
    """Whether a text parses, and whether it compiles."""
    code = request["code"]
    compiled = attempt(lambda: compile(code, "<code>", "exec", dont_inherit=True))
    return {"parses": attempt(lambda: ast.parse(code)) is not None, "compiles": compiled is not None}


def facts(request):
    tree = attempt(lambda: ast.parse(request["code"]))
    if tree is None:
        return None
    return {"simple": is_simple_test_case(tree), "imports": get_global_imports(tree)}


def normalize(request):
    return attempt(lambda: ast.unparse(ast.parse(request["code"])))


def convert(request):
    tree = wanted(request)
    return None if tree is None else attempt(lambda: ast.unparse(tree))


def humaneval(request):
    """The calls and expected values in the tests of HumanEval, and its programs."""
    pairs, programs, asserts = [], [], []
    with gzip.open(request["path"], "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    for problem in problems:
        program = f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\ncheck({problem['entry_point']})"
        programs.append(program)
        for node in ast.walk(ast.parse(problem["test"])):
            if not isinstance(node, ast.Assert):
                continue
            asserts.append(ast.get_source_segment(problem["test"], node))
            test = node.test
            if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
                sides = test.left, test.comparators[0]
                pairs.append([ast.get_source_segment(problem["test"], side) for side in sides])
    return {"pairs": pairs, "programs": programs, "asserts": asserts}


def seconds(request):
    """Seconds that one conversion takes, parsing and printing alone."""
    started = time.perf_counter()
    for call, expected in request["pairs"]:
        module = ast.parse(call)
        test = ast.Compare(module.body[-1].value, [ast.Eq()], [ast.parse(expected).body[0].value])
        module.body[-1] = ast.Assert(test, None)
        ast.unparse(module)
    return (time.perf_counter() - started) / len(request["pairs"])


OPERATIONS = {"time": seconds, "same": same, "normalize": normalize, "convert": convert, "valid": valid, "facts": facts, "humaneval": humaneval}

if __name__ == "__main__":
    sys.setrecursionlimit(5_000)
    for line in sys.stdin:
        answers = [OPERATIONS[request["op"]](request) for request in json.loads(line)]
        print(json.dumps(answers), flush=True)

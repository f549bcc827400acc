"""Compiles and rewrites a source, and runs none of it. The answer is one line on standard output."""
import ast
import json

REQUEST = json.load(open("request.json", encoding="utf-8"))


def is_valid(code):
    try:
        compile(code, "<source>", "exec", dont_inherit=True)
        return True
    except (SyntaxError, ValueError):
        return False


def normalize(code):
    return ast.unparse(ast.parse(code))


def convert_call_to_assert(call, expected, requires_float):
    tree = ast.parse(call)
    last = tree.body[-1]
    if isinstance(last, ast.Assert):
        return ast.unparse(tree)
    if not isinstance(last, ast.Expr):
        raise ValueError("the last statement is no expression")
    value = ast.parse(expected.strip(), mode="eval").body
    if requires_float:
        difference = ast.BinOp(left=last.value, op=ast.Sub(), right=value)
        size = ast.Call(func=ast.Name(id="abs", ctx=ast.Load()), args=[difference], keywords=[])
        test = ast.Compare(left=size, ops=[ast.Lt()], comparators=[ast.Constant(value=1e-06)])
    else:
        test = ast.Compare(left=last.value, ops=[ast.Eq()], comparators=[value])
    tree.body[-1] = ast.Assert(test=test, msg=None)
    return ast.unparse(ast.fix_missing_locations(tree))


try:
    answer = {"answer": globals()[REQUEST.pop("ask")](**REQUEST)}
except (SyntaxError, ValueError, IndexError):
    answer = {"answer": None}
except (MemoryError, RecursionError):
    answer = {"exhausted": True}
print(json.dumps(answer))

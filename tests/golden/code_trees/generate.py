"""Writes the golden files beside it: `python3.11 tests/golden/code_trees/generate.py`.

`converted.jsonl` has calls, expected values and the text that the reference gives for them, or null where it
refuses them; `programs.jsonl` has programs and what CPython says of them.
"""

import ast
import json
import pathlib
import sys

import reference

# Every kind of expression; each is used as a call and as an expected value.
EXPRESSIONS = r"""
f(1)
f()
f(1, 'a', *b, c=2, **d)
f(x for x in y)
f((x for x in y), 1)
f(1,)
f(a)(b)(c)
a.b.c
a.b(1).c[0]
a[0]
a[1:2]
a[1:2, ::3]
a[:]
a[()]
a[1,]
a[*b]
a[x := 1]
name
(name)
((name))
(((f(1))))
True
None
...
0
123_456
0xFf
0o17
0b1_0
1.5
.5
1.
1e10
1e-06
1E+5
1e999
3j
1.5e3J
00
999999999999999999999999999999999999999999
0x_ffff_ffff_ffff_ffff_ffff
-1
+1
~1
--1
- - 1
-1 ** 2
(-1) ** 2
2 ** -1
2 ** 3 ** 4
1 + 2
1 - 2 - 3
1 - (2 - 3)
1 * 2 + 3
a @ b
a // b % c
a << 1 >> 2
a & b | c ^ d
not a
not not a
a and b
a or b and c
(a or b) and c
a < b
a < b <= c
a == b
a == b == c
a != b
a is None
a is not None
a in b
a not in b
(a == b)
a if b else c
a if b else c if d else e
(a if b else c)
lambda: 1
lambda x: x
lambda x, /, y=1, *z, w, **k: (x, y)
(lambda: 1)()
(x := 1)
(x := f(1))
f(x := 1)
[x := 1, 2]
{x := 1}
()
(1,)
1,
1, 2
(1, 2)
(1), (2)
*a, 1
(*a, 1)
[1, 2]
[]
[*a, *b]
[[1], [2, [3]]]
{1, 2}
{*a}
{}
{1: 2}
{1: 2, **a}
{'a': [1], 'b': {'c': (1, 2)}}
[x for x in y]
[x for x in y if x if z]
[x for x in y for z in x]
[x, y] == [z for z in x]
{x for x in y}
{x: y for x, y in z}
(x for x in y)
[(x, y) for x, y in z if x < y]
[x async for x in y]
[await x for x in y]
await f(1)
await f(1) + 1
-await f(1)
(await f(1))
(yield)
(yield 1)
(yield 1, 2)
(yield from a)
yield 1
yield
yield from a
'a'
"a"
'''a'''
'a' 'b'
'a' "b" '''c'''
('a'
 'b')
'it\'s'
"\"'"
'\n\t\\\x41\u00e9\U0001F600\101'
'\N{GREEK SMALL LETTER ALPHA}'
'\ud800'
'\udc80\ud83d\ude00'
'\d'
'é'
'日本語 😀'
u'a'
r'\n'
R'\'a'
b'a'
b'\xff\n'
rb'\n'
Rb'\x'
b'a' b'b'
'a\
b'
f'{x}'
f'{x!r:>{w}}'
f'{x=}'
f'{x = !s}'
f'{{}}'
f'{x:%Y-%m-%d}'
f"{d['k']}"
f'{f(1, a=2)} {a + b}'
f'{x}' 'a' f'{y}'
'a' f'{x}'
rf'\n{x}'
f'''{x}
{y}'''
f'{x:{y}.{z}}'
f'{(lambda: 1)()}'
f'{ {1: 2}[1] }'
f'{a if b else c}'
f"{'a' if b else 'c'}"
f'\N{DASH}'
f'{x!a}'
f''
a.b.c.d(e)[f](g)
f(lambda x: x, key=lambda y: -y)
f([i for i in range(3)], {k: v for k, v in z})
sorted(a, key=lambda x: (x[1], -x[0]))[:2]
print('a', end='')
abs(a - b) < 1e-6
math.isclose(a, b)
list(map(str, [1, 2]))
set([1]) == {1}
1 if 2 else 3,
[1, 2
, 3]
{
 'a': 1,  # one
 'b': 2,
}
f(
    1,
    2,
)
f(  # comment
  1)
a + \
  b
(a
 + b)
((((((((((1))))))))))
1 .real
1.0.real
1..real
5 .bit_length()
match
match(x)
case
type(x)
type
_
print
é
ﬁ
x.é
__debug__
*a
a = 1
a b
1 +
)
(
f(a=1, a=2)
f(a=1, 2)
f(**a, *b)
f(x for x in y, 1)
f(x for x in y,)
(*a)
[*a for a in b]
{**a for a in b}
x := 1
not
lambda
a <> b
a ? b
a!
0777
1__0
1_
0b2
1abc
0xg
1if 1else 2
'a
'''a
'a' b'b'
b'é'
'\x'
'\u12'
f'{'
f'}'
f'{}'
f'{a b}'
f'{a!x}'
f'{*a}'
f"{a["b"]}"
f"{'\n'}"
t'{x}'
ub'a'
import a
pass
del a
assert a
return 1
a: int
a += 1
if a: b
""".strip("\n")

# Programs around a call, which is the last statement.
AROUND = [
    "{}", "{}\n", "\n\n{}\n\n", "{}  # comment", "{};", "{} ; # comment\n", "# comment\n{}", "{}\n# comment\n\n# more",
    "x = 1\n{}", "x = 1; {}", "x = 1 ; y = 2 ;{};", "import a\nfrom b import c\n\n{}", "def g(x):\n    return x\n{}",
    "def g(x):\n\treturn x\n\n{}", "if a:\n  b\nelse:\n  c\n{}", "for a in b:\n    pass\nelse:\n    c\n{}", "x = 1\r\n{}\r\n", "x = 1\r{}",
    "\f{}", "x = 1\n\f{}", "\ufeff{}", "\ufeffx = 1\n{}", "# -*- coding: latin-1 -*-\nx = 'é'\n{}", "# vim: set fileencoding=cp1252 :\n{}",
    "#!/usr/bin/env python\n# coding: ascii\ny = 'é'\n{}", "# coding: utf-8\nx = 1\n{}", "x = '''\n# coding: latin-1\n'''\n{}",
    '"""Docstring.\n\n  indented\n"""\n{}', "x = '''a\n  b'''\n{}", "x = 1 \\\n  + 2\n{}", "x = (\n# comment\n1)\n{}", "@d\nclass A(B, metaclass=C):\n    x: int = 1\n{}",
    "with a as b, c:\n    pass\n{}", "try:\n    a\nexcept A as e:\n    b\nfinally:\n    c\n{}", "async def g():\n    async with a:\n        await b\n{}", "x = y = 1\ndel x, y\n{}",
    "global g\n{}", "while a:\n    break\n{}", "match a:\n    case [1, *b] if c:\n        d\n    case {'k': v, **r}:\n        e\n{}", "def g[T](x: T) -> T:\n    return x\n{}", "type X = int\n{}",
    "try:\n    a\nexcept* A:\n    b\n{}", "lambda: 0\n{}", "x = [\n1,\n\n2]\n{}", "if a: b; c\n{}", "assert a\n{}", " {}", "x = 1\n  {}", "{}\nx = 1", "{}\n)", "if a:\n    {}", "{}\n\\", "\\\n{}", "{} \\\n", "x\x00\n{}",
]
CALLS = ["f(1)", "a < b", "f(\n 1)", "'''a\nb'''", "(f(1))", "assert f(1) == 2, 'm'", "-1", "f'{x}'"]

# Lists of tests as MBPP has them.
MBPP = [
    "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)", "assert is_not_prime(2) == False", "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65]",
    "assert set(find_char_long('Please move back to stream')) == set(['Please', 'move', 'back', 'stream'])", "assert math.isclose(volume_sphere(10), 4188.790204786391, rel_tol=0.001)",
    "assert text_match('aab_cbbbc') == ('Found a match!')", "assert count_common(['red','green','black']) == [('pink', 6), ('black', 5)]", "assert not_unique(1) is None",
    'assert capital_words_spaces("PythonProgrammingExamples") == \'Python Programming Examples\'', "assert f(1)[0] == 1", "assert 1 == f(1)", "assert f(1)", "assert (f(1) + 2) < 3", "assert x.y == 1", "assert [f(x) for x in y] == z",
    "assert f'{g()}' == 'a'", "x = f(1)\nassert x == 1", "f(1) == 2", "assert (lambda: g())() == 1", "assert x[f(1)] == 1", "assert -f(1) == 1", "assert not f(1) == 1", "assert f(1) == 1 == 1, g()", "", "# nothing",
]
IMPORTS = [
    "import a", "import a.b.c", "import a as b, c.d as e", "from a import b", "from . import b", "from .. import b as c", "from ...a.b import (c,\n  d as e,\n)", "from .... import x", "from a import *", "import a; from b import c; x = 1",
    "if x:\n    import a\nimport b", "def f():\n    import a\n", "try:\n    import a\nexcept ImportError:\n    pass\nfrom b import c # comment", "from a \\\n  import b", "from __future__ import annotations\nimport a", "import match, type, case", "import é",
]
PROGRAMS = r"""
1 = x
f() = x
(a, b) = c
[a, *b] = c
*a = b
*a, *b = c
a + b = c
None = 1
True = 1
a = b = 1 = c
a.b = c[d] = e
(a) = 1
() = a
[] = a
(a, b) += 1
a: int
(a): int = 1
a.b: int = 1
(a, b): int
a: int = b, c
a += yield
del a, b.c, d[e]
del (a, b), [c]
del f()
del a + b
del *a
for a, b in c: pass
for 1 in a: pass
for a.b in c: pass
for f() in c: pass
for x in *a, b: pass
with a as b: pass
with a as 1: pass
with a as (b, c): pass
with (a as b, c as d): pass
with (a): pass
with (a), (b): pass
return
return 1
yield
await a
break
continue
while a: break
while a: continue
for a in b: break
if a: break
class A: return
class A: break
def f(): return 1
def f(): yield 1
def f(): await a
def f(): break
def f(a, a): pass
def f(a=1, b): pass
def f(*): pass
def f(**): pass
def f(*, **k): pass
def f(*, a): pass
def f(*a, b=1, **c): pass
def f(a, /, b): pass
def f(/, a): pass
def f(a, *, b, *c): pass
def f(None): pass
lambda a, a: 1
lambda *: 1
lambda **: 1
lambda *, **k: 1
lambda a=1, b: 1
async def f(): await a
async def f(): yield 1
async def f(): return
async def f(): return 1
async def f(): yield 1; return 2
async def f(): yield from a
async def f(): [await x async for x in y]
async def f(): return [[x async for x in y] for z in w]
async with a: pass
async for a in b: pass
[x async for x in y]
def f(): [(yield x) for x in y]
def f(): x = yield
def f(): f(yield)
def f(): f((yield))
def f(): return (yield)
def f(): a = yield = 1
def f(): yield *a, b
def f(): return *a, b
class A: x = yield
global a
def f(): global a; a = 1
def f(): a = 1; global a
def f(a): global a
nonlocal a
def f(): nonlocal a
from __future__ import annotations
from __future__ import braces
from __future__ import nothing
x = 1; from __future__ import annotations
from a import *
def f(): from a import *
class A: from a import *
from a import b,
from a import (b,)
import a as b.c
try: pass
try: a
except: b
raise a from b
raise a, b
assert a, b
assert a, b, c
print a
exec a
a <> b
x = 1if 2 else 3
x = 0777
x = 1_000
x = "\d"
x = '\x'
x = b'é'
x = 'a' b'a'
x = f'{a!z}'
@a
@a.b(c)
@a[0]
@(a)
x[a:=1]
{a := 1: 2}
f(a:=1)
f(b=a:=1)
f(a=1, a=1)
f(a.b=1)
f(None=1)
f(x for x in y)
f(x for x in y, 1)
f(1, x for x in y)
f(x for x in y, a=1)
f((x) for x in (y), 1)
f((x for x in y), x for x in y)
class A(x for x in y): pass
class A(B, metaclass=C): pass
class A(): pass
class A[T]: pass
(a := 1)
a := 1
(a.b := 1)
[a := 1 for x in y]
[x for x in (a := y)]
[x := 1 for x in y]
class A: [x := 1 for y in z]
if a := 1: pass
while a := 1: pass
lambda: a := 1
lambda: (a := 1)
assert a := 1
a = *b
a = *b,
a = (*b)
print(*a)
print(**a)
print(*a or b)
*a or b, c
(*a if b else c, d)
*a
*a,
{*a, *b}
{**a, 'b': 1}
{**a}
[*a for a in b]
(*a for a in b)
[x for x in a, b]
[x for x in lambda: y]
[x for x in y if lambda: z]
[x for x in y if a if b else c]
x[*a]
x[a, *b]
x[1:2, 3]
x[]
()()
1()
"a" "b"
"a" 1
pass pass
pass; pass
;
pass;;
if a: pass; else: pass
if a: b
if a:
else: b
elif a: b
match a: pass
match = 1
match(a)
match (a), b
match[a]
case = 1
type = 1
type(a)
type X = int
type X
print(match, case, type)
__debug__ = 1
x.__debug__ = 1
def __debug__(): pass
def f(__debug__): pass
f(__debug__=1)
print(__debug__)
$
a ? b
a ! b
`a`
x = (
x = )
x = [1, 2
x = (1]
x = '
x = '''
x \
x \ y
	x
 x
é = 1
x = 'é'
x = ​1
""".strip("\n").split("\n")
BLOCKS = [
    "if a:\n  b\n c", "if a:\nb", "if a:\n    b\n\tc", "if a:\n\tb\n        c", "if a:\n        b\n\tc", "if a:\n  b\n  else: c", "if a:\n  b\n    c", "if a:\n", "if a:\n  # b\n", "if a:\n  b\n\n\n # c\nd",
    "def f():\n  '''doc'''", "def f():\n  x = '''\na\n'''\n  y", "class A:\n  def f(self):\n    return 1\n  x = 1\n", "try:\n  a\nexcept:\n  b\nexcept A:\n  c", "try:\n  a\nexcept A:\n  b\nelse:\n  c\nfinally:\n  d",
    "try:\n  a\nfinally:\n  b", "try:\n  a\nelse:\n  b", "try:\n  a\nexcept* A:\n  b", "try:\n  a\nexcept* A:\n  b\nexcept C:\n  d", "for a in b:\n  try:\n    continue\n  finally:\n    break", "while a:\n  def f():\n    break",
    "while a:\n  class B:\n    continue", "while a:\n  pass\nelse:\n  break", "match a:\n  case 1: b\n  case x: c\n  case y: d", "match a:\n  case _: b", "match a, b:\n  case 1 + 2: c", "match a:\n  case x | y: b", "match a:\n  case -1 | 'a' | None: b",
    "@a\ndef f(): pass", "@a.b(c)\nclass A: pass", "@a[0]\ndef f(): pass", "@a\nx = 1", "def f():\n  global a\n  a = 1", "def f():\n  a = 1\n  def g():\n    nonlocal a\n    a = 2", "def f(a: int = 1, *b: str, c: 'x' = 2) -> None: ...",
    "def f(x: (yield)): pass", "def f():\n  def g(x=(yield)): pass", "x = 1\r\ny = 2\rz = 3", "x = 'a\r\nb'", "x = '''a\r\nb'''", "# a\x00b", "x = 1\x0c", "\x0cx = 1", "if a:\n\x0c  b", "x = \\\n1", "x = 1 \\\n", "\\\nx = 1", "if a:\n  \\\n  b",
    "match *x:\n  case y: z", "match *x,:\n  case y: z", "match *x, y:\n  case y: z", "match x:\n  case *y: z", "match x:\n  case [(*y)]: z", "match x:\n  case f'{y}': z", "match x:\n  case 1 + 2j, -1 - 2.5j: z", "match x:\n  case {'a': 1, **r}: z", "match x:\n  case A(b, c=d) as e: z",
    "def f(**# c\n): pass", "def f(a, *, # c\n  b): pass", "def f(a, *,\n  b): pass", "if a:\n  b\n  from __future__ import annotations", "'doc'\nfrom __future__ import annotations\nx", "x\nfrom __future__ import annotations",
    "# -*- coding: latin-1 -*-\nx = 1", "\ufeffx = 1", "x = 1\x1a", "x\u00a0= 1", "x = 1\u2028y = 2", "\n".join("  " * i + "for a in b:" for i in range(21)) + "\n" + "  " * 21 + "pass", "\n".join("  " * i + "if a:" for i in range(30)) + "\n" + "  " * 30 + "pass",
    "\n".join(" " * i + "if a:" for i in range(101)) + "\n" + " " * 101 + "pass", "(" * 60 + ")" * 60, "(" * 201 + ")" * 201, "x = " + "1 + " * 200 + "1", "x = " + "9" * 4300, "x = " + "9" * 4301, "x = 0x" + "f" * 9000, "if a: pass\n" + "elif b: pass\n" * 150,
]


def main():
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"the golden files are CPython 3.11's, and this is {sys.version.split()[0]}")
    here = pathlib.Path(__file__).parent
    expressions, open_lines = [], ""
    for line in EXPRESSIONS.split("\n"):
        # A line that goes on with an indented or closing one is one expression with it.
        continues = line[:1] in (" ", ",", "}") or (line == ")" and open_lines) or open_lines.endswith("\\") or line == "{y}'''"
        if continues and expressions:
            expressions[-1] += "\n" + line
        else:
            expressions.append(line)
        open_lines = line if line.endswith(("(", "{", "\\", ",")) or line[:1] == " " else ""
    cases = [(call, "1", False) for call in expressions] + [("f(x)", value, False) for value in expressions]
    cases += [(call, call, True) for call in expressions]
    cases += [(around.replace("{}", call), "[1, 2]", False) for around in AROUND for call in CALLS]
    cases += [("f(x)", around.replace("{}", "a < b"), False) for around in AROUND]
    cases += [(test, "1", False) for test in MBPP]
    with open(here / "converted.jsonl", "w", encoding="utf-8") as out:
        for call, expected, requires_float in dict.fromkeys(cases):
            tree = reference.attempt(lambda: reference.convert_call_to_assert(call, expected, requires_float))
            text = reference.attempt(lambda: ast.unparse(tree)) if tree else None
            # `ast.unparse` is not always true to the tree; then only the tree itself is compared.
            if text is not None and reference.dump(reference.attempt(lambda: ast.parse(text))) != ast.dump(tree):
                text = None
            case = {"call": call, "expected": expected, "float": requires_float, "accepted": tree is not None, "golden": text}
            out.write(json.dumps(case) + "\n")
    with open(here / "programs.jsonl", "w", encoding="utf-8") as out:
        for code in dict.fromkeys(expressions + PROGRAMS + BLOCKS + MBPP + IMPORTS + [around.replace("{}", "f(1)") for around in AROUND]):
            case = {"code": code} | reference.valid({"code": code}) | (reference.facts({"code": code}) or {})
            out.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()

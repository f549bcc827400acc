"""Runs solution.py as a script and then prints its answer on a line of its own, where it has one.

The answer is what `solution()` returns, or else the variable `answer`; where there is neither, the last line that
the program itself has printed is its answer.
"""

import decimal
import fractions
import os
import sys


def shown(value):
    """A number as text that loses nothing; anything else as it prints."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return shown(value[0])
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (decimal.Decimal, fractions.Fraction)):
        return str(value)
    return str(value)


def main():
    path = os.path.abspath("solution.py")
    with open(path, "rb") as file:
        source = file.read()
    namespace = {"__name__": "__main__", "__file__": path, "__builtins__": __builtins__}
    sys.argv = ["solution.py"]
    exec(compile(source, path, "exec", dont_inherit=True), namespace)
    solution = namespace.get("solution")
    if callable(solution):
        answer = solution()
    else:
        answer = namespace.get("answer")
    if answer is not None:
        print(f"\n{shown(answer)}")


main()

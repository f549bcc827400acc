def run():
    import os
    import sys

    # The nonce stands in this frame alone, and nothing of the program has run when it is read.
    fd = int(os.environ.pop("EVALMILL_WITNESS_FD"))
    nonce = os.read(fd, 256)
    write, here = os.write, os.getcwd() + "/"
    main = sys.modules["__main__"].__dict__
    del main["run"]
    # The frames of this function and of exec stand below the program: give their depth back.
    sys.setrecursionlimit(sys.getrecursionlimit() + 3)
    for name in ("solution.py", "test.py", "call.py"):
        with open(name, "rb", 0) as file:
            source = file.read()
        main["__file__"] = here + name
        exec(compile(source, name, "exec", dont_inherit=True), main)
    write(fd, nonce)


run()

"""Makes destructive calls fail inside this process. It is no sandbox.

A program that means harm gets around it: by other modules, by what was imported before, by ctypes. It
keeps programs that mean none from removing files, starting processes or ending other ones by accident.
"""

_DISABLED = {
    "builtins": "exit quit help",
    "os": (
        "kill killpg system popen fork forkpty fork1 abort "
        "execl execle execlp execlpe execv execve execvp execvpe posix_spawn posix_spawnp "
        "spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe startfile "
        "remove unlink rmdir removedirs rename renames replace truncate ftruncate link symlink "
        "chmod fchmod lchmod chown fchown lchown chflags lchflags chroot chdir fchdir "
        "setuid seteuid setreuid setresuid setgid setegid setregid setresgid setgroups initgroups "
        "setpgid setpgrp setsid putenv unsetenv"
    ),
    "shutil": "rmtree move chown",
    "_posixsubprocess": "fork_exec",
}
# What is not there any more for those who import it from now on.
_HIDDEN = "ipdb joblib resource psutil tkinter"


def _disabled(name):
    def refuse(*args, **kwargs):
        raise PermissionError(name + " is disabled here")

    refuse.__name__ = refuse.__qualname__ = name.rpartition(".")[2]
    return refuse


def reliability_guard(maximum_memory_bytes=None):
    """Disables them for the rest of the process, and limits its memory where a number is given."""
    import faulthandler
    import importlib
    import os
    import subprocess
    import sys

    # It stands at the end of this module when it is given out.
    _limit_memory(maximum_memory_bytes)
    faulthandler.disable()
    os.environ["OMP_NUM_THREADS"] = "1"

    for module_name, names in _DISABLED.items():
        try:
            modules = [importlib.import_module(module_name)]
        except ImportError:
            continue
        if module_name == "os":
            # The functions of `os` are those of this one.
            modules.append(importlib.import_module(os.name))
        for module in modules:
            for name in names.split():
                if hasattr(module, name):
                    setattr(module, name, _disabled(module_name + "." + name))

    class Popen(subprocess.Popen):
        # Others derive classes from it: it stays one.
        __init__ = _disabled("subprocess.Popen")

        def __del__(self):
            pass

    subprocess.Popen = Popen
    for name in _HIDDEN.split():
        sys.modules[name] = None

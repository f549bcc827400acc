# Timers, queued signals, inotify instances, each up to what a user may have or 500.
import ctypes, os, signal
from trial import LIBC, say
signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 64))
def flood(one):
    for number in range(500):
        if one() == -1:
            break
    return number > 0
timer = ctypes.c_int()
say(
    timers=flood(lambda: LIBC.syscall(222, 1, None, ctypes.byref(timer))),
    signals=flood(lambda: LIBC.sigqueue(os.getpid(), 40, None)),
    inotify=flood(lambda: LIBC.inotify_init()),
)

# Timers, queued signals, inotify instances: few enough of these that two runs of the suite do not meet.
import ctypes, os, signal
from trial import LIBC, say
signal.pthread_sigmask(signal.SIG_BLOCK, range(34, 64))
def flood(one, most=500):
    for number in range(most):
        if one() == -1:
            break
    return number > 0
timer = ctypes.c_int()
say(
    timers=flood(lambda: LIBC.syscall(222, 1, None, ctypes.byref(timer))),
    signals=flood(lambda: LIBC.sigqueue(os.getpid(), 40, None)),
    inotify=flood(lambda: LIBC.inotify_init(), 60),
)

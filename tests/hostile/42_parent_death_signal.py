import os, time
from trial import LIBC
LIBC.prctl(1, 0)
if os.fork() == 0:
    os.setsid()
    LIBC.prctl(1, 0)
    time.sleep(60)

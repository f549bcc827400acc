# Forks and ends, again and again, for 10 s at most.
import os, time
until = time.monotonic() + 10
if os.fork() == 0:
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)

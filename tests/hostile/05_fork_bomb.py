# Doubles seven times: 128 processes, and no more where nothing stops it.
import os, time
for _ in range(7):
    try:
        os.fork()
    except OSError:
        pass
time.sleep(30)

# 30 children that have ended and are not waited for.
import os, time
for _ in range(30):
    if os.fork() == 0:
        os._exit(0)
time.sleep(30)

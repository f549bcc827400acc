import os, signal, time
from trial import attempt
print(attempt(os.kill, os.getppid(), signal.SIGKILL) in ('ok', 'EPERM'), flush=True)
time.sleep(0.3)

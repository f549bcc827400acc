# Where strangers could be reached they are only asked whether they could.
import os, signal, subprocess
from trial import CONTAINED, attempt, say
child = subprocess.Popen(['sleep', '60'])
if CONTAINED:
    for target in [1, os.getppid()]:
        for one in range(1, 65):
            attempt(os.kill, target, one)
    os.kill(-1, signal.SIGKILL)
    print('own child only' if child.wait() == -signal.SIGKILL else 'not even that')
else:
    child.kill()
    say(worker=attempt(os.kill, os.getppid(), 0), first=attempt(os.kill, 1, 0))

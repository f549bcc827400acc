# Computes for 2.4 s in children that live for 40 ms and that nobody waits for: their time is in no parent's account.
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ours, theirs = os.pipe()
for chain in range(2):
    if os.fork() == 0:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                while time.process_time() < 0.04:
                    pass
                os._exit(0)
            try:
                os.waitpid(child, 0)
            except ChildProcessError:
                pass
        os._exit(0)
os.close(theirs)
os.read(ours, 1)

import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for one in range(1, 32):
        try:
            signal.signal(one, signal.SIG_IGN)
        except OSError:
            pass
    time.sleep(60)

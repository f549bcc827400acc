import signal
for one in [signal.SIGTERM, signal.SIGXCPU, signal.SIGINT, signal.SIGHUP, signal.SIGALRM]:
    signal.signal(one, signal.SIG_IGN)
while True:
    pass

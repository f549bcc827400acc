import signal, time
signal.alarm(0)
for one in [signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF]:
    signal.setitimer(one, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
time.sleep(600)

import ctypes, os, resource, signal, time
os.umask(0)
os.nice(5)
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
os.environ['TZ'] = 'Asia/Tokyo'
time.tzset()
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
ctypes.CDLL(None).prctl(15, b'renamed')
print('changed')

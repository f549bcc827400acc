import ctypes, os, resource, signal
from trial import LIBC, say
GET_NAME, name = 16, ctypes.create_string_buffer(16)
LIBC.prctl(GET_NAME, name)
say(
    umask=os.umask(0o022) == 0o022, nice=os.getpriority(os.PRIO_PROCESS, 0) == 0, affinity=len(os.sched_getaffinity(0)) == os.cpu_count(),
    files=resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 20, zone='TZ' not in os.environ, mask=not signal.pthread_sigmask(signal.SIG_BLOCK, []),
    interrupt=signal.getsignal(signal.SIGINT) is signal.default_int_handler, scheduler=os.sched_getscheduler(0) == os.SCHED_OTHER,
    name=name.value.startswith(b'python'),
)

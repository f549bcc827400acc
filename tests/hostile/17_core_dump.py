# At a limit of 1 no core is made. At 0 it would be handed to the host's program for cores, where there is one.
import ctypes, os, resource
from trial import LIBC, word
print('limit', *resource.getrlimit(resource.RLIMIT_CORE), end=' ')
answer = LIBC.setrlimit(4, (ctypes.c_ulong * 2)(0, 0))
print('lowered', 'ok' if answer == 0 else word(ctypes.get_errno()), flush=True)
os.abort()

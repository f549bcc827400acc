# Reads one page of every 2 MiB of a large mapping: no page becomes its own, and the tables of pages grow.
import ctypes, time
from trial import LIBC
LIBC.mmap.restype = ctypes.c_void_p
BYTES, STEP = 1 << 40, 2 << 20
# PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE; MADV_NOHUGEPAGE.
at = LIBC.mmap(None, ctypes.c_size_t(BYTES), 1, 0x4022, -1, ctypes.c_long(0))
LIBC.madvise(ctypes.c_void_p(at), ctypes.c_size_t(BYTES), 15)
for table in range(100_000):
    ctypes.string_at(at + table * STEP, 1)
time.sleep(1)
print('held 390 MB')

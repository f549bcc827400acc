# Makes itself unreadable, and holds its memory in a mapping that could be shared.
import mmap, time
from trial import LIBC
LIBC.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
mapping = mmap.mmap(-1, 200 << 20)
for page in range(0, 200 << 20, 4096):
    mapping[page] = 1
time.sleep(1)
print('held 200 MB')

import mmap
NORESERVE = 0x4000
space = mmap.mmap(-1, 100 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
space[50 << 30] = 1
print('mapped', len(space) >> 30)

import array, fcntl, os
found = 0
for path in ('.', '..', os.environ['TMPDIR']):
    flags = array.array('L', [0])
    try:
        fcntl.ioctl(os.open(path, os.O_RDONLY), 0x80086601, flags)
    except OSError:
        pass
    found |= flags[0] & 0x48
print(found)

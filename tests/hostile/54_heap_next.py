# What is looked for is put together only while looking.
from trial import MARK
def scan():
    found, needle = 0, bytearray(MARK.encode())
    needle.reverse()
    tail = bytearray(b'terces-')
    tail.reverse()
    try:
        memory = open('/proc/self/mem', 'rb', buffering=0)
    except OSError:
        return 0
    for line in open('/proc/self/maps'):
        area, rights, *_ = line.split()
        start, end = (int(one, 16) for one in area.split('-'))
        if 'r' not in rights or 'v' in line[-12:] or end - start > 64 << 20:
            continue
        memory.seek(start)
        try:
            found += memory.read(end - start).count(bytes(tail) * 3)
        except OSError:
            pass
    return found
print('found' if scan() > 20 else 'nothing')

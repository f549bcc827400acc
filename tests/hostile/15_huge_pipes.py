# 30 pipes of up to 1 MB, full.
import fcntl, os
held = []
for _ in range(30):
    read, write = os.pipe()
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass
    os.set_blocking(write, False)
    try:
        while os.write(write, bytes(65536)):
            pass
    except BlockingIOError:
        held.append((read, write))
print('full', len(held))

import fcntl, os
for fd in range(3):
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
written = 0
for _ in range(300):
    try:
        written += os.write(1, b' ' * 1024)
    except BlockingIOError:
        pass
os.set_blocking(2, True)
os.write(2, b'some' if written else b'none')
os.set_blocking(1, True)
os.write(1, b'\nend')

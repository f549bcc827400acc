import os
written = 0
for fd in range(3, 1024):
    try:
        os.write(fd, b'{"forged": true}\n')
        written += 1
    except OSError:
        pass
print('written', written)

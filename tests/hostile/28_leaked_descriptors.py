import os
from trial import in_child, say, call
leaked = []
for fd in range(3, 4096):
    try:
        leaked.append(os.fstat(fd))
    except OSError:
        pass
def enter():
    try:
        fd = os.open(f'/proc/{os.getppid()}/ns/mnt', os.O_RDONLY)
    except OSError:
        return 'refused'
    return 'refused' if call(308, fd, 0) != 'ok' else 'entered'
say(leaked=len(leaked), setns=in_child(enter))

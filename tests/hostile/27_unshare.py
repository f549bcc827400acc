import os, threading
from trial import call, in_child, say
NAMES = dict(user=0x10000000, mount=0x20000, pid=0x20000000, net=0x40000000, ipc=0x08000000, uts=0x04000000, cgroup=0x02000000)
outcomes = {name: in_child(lambda: call(272, flag)) for name, flag in NAMES.items()}
seen = []
thread = threading.Thread(target=seen.append, args=(1,))
thread.start()
thread.join()
assert seen == [1]
say(**outcomes)

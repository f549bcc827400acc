import os
from trial import say, try_open
refused = ('ETXTBSY', 'EROFS', 'EACCES', 'EPERM', 'ENOENT')
say(own=try_open('/proc/self/exe', 'r+b') in refused, worker=try_open(f'/proc/{os.getppid()}/exe', 'r+b') in refused)

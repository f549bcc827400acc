import os, stat
from trial import attempt
os.mkfifo('fifo')
os.mkdir('dir')
os.symlink('/dev/zero', 'device')
attempt(os.mknod, 'socket', 0o600 | stat.S_IFSOCK)

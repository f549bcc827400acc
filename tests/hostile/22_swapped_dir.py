# A child exchanges a directory with a link to /etc, again and again, until it is killed.
import os, time
from trial import LIBC
os.mkdir('dir')
open('dir/hostname', 'w').write('mine')
os.symlink('/etc', 'link')
EXCHANGE = 2
if os.fork() == 0:
    while True:
        LIBC.renameat2(-100, b'dir', -100, b'link', EXCHANGE)
time.sleep(0.1)

# A child swaps a directory for a link until it is killed.
import os, time
os.mkdir('real')
open('real/hostname', 'w').write('mine')
os.symlink('/etc', 'link')
os.symlink('real', 'dir')
if os.fork() == 0:
    while True:
        for target in ['link', 'real']:
            os.symlink(target, 'new')
            os.rename('new', 'dir')
time.sleep(0.2)

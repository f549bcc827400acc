import os
os.symlink('/etc/passwd', 'link')
os.symlink('host.json', 'inner')
os.symlink('/etc', 'dir')

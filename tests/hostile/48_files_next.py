import os, shutil
from trial import MARK
found = []
for dir in ['/tmp', '/dev/shm', os.environ['TMPDIR'], os.path.expanduser('~'), '..']:
    path = f'{dir}/{MARK}-48'
    if os.path.lexists(path):
        found.append(dir)
        os.chmod(path, 0o700)
        shutil.rmtree(path)
print('found', *found or ['nothing'])

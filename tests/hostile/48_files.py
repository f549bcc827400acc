import os
from trial import MARK
for dir in ['/tmp', '/dev/shm', os.environ['TMPDIR'], os.path.expanduser('~'), '..']:
    try:
        os.makedirs(f'{dir}/{MARK}-48/deep')
        os.chmod(f'{dir}/{MARK}-48', 0)
    except OSError:
        pass

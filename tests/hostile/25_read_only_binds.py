import os, sys
from trial import MARK, attempt, guarded, say
def write(dir):
    path = f'{dir}/{MARK}'
    open(path, 'w').close()
    os.unlink(path)
def rename():
    os.rename('/usr/bin/env', '/usr/bin/env.moved')
refused = ('EROFS', 'EACCES', 'EPERM', 'EXDEV', 'EBUSY')
outcomes = [guarded(write, dir) for dir in ['/usr', '/usr/bin', '/etc', '/', '/dev', os.path.dirname(os.__file__)]]
outcomes += [guarded(rename), guarded(os.chmod, '/usr/bin/env', 0o777), guarded(os.truncate, '/usr/bin/env', 0)]
print('refused' if all(one in refused for one in outcomes) else outcomes[0])

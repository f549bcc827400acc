# The harmless task after each hostile one: finds what every program finds.
import os
from trial import CONTAINED, MARK, processes
wrong = []
def expect(what, seen, expected):
    if seen != expected:
        wrong.append(f'{what} {seen} not {expected}')
expect('box', sorted(os.listdir('.')), ['host.json', 'main.py', 'trial.py'])
expect('TMPDIR', os.listdir(os.environ['TMPDIR']), [])
expect('nice', os.getpriority(os.PRIO_PROCESS, 0), 0)
expect('umask', os.umask(0o022), 0o022)
def of_this_run(pid):
    try:
        return f'EVALMILL_HOSTILE={MARK}'.encode() in open(f'/proc/{pid}/environ', 'rb').read()
    except OSError:
        return False
expect('processes', [pid for pid in processes() if of_this_run(pid) and pid != str(os.getpid())], [])
if CONTAINED:
    for dir in ['/tmp', '/dev/shm']:
        expect(dir, os.listdir(dir), [])
        expect(dir, os.stat(dir).st_mode & 0o7777, 0o1777)
    expect('/box', len(os.listdir('/box')), 2)
    expect('/proc', processes(), [str(os.getpid())])
print('; '.join(wrong) or 'clean')

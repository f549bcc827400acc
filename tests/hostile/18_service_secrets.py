import os
from trial import HOST, processes, say, try_open
def environment(pid):
    try:
        text = open(f'/proc/{pid}/environ', 'rb').read()
    except OSError:
        return False
    return b'EVALMILL_TEST_SECRET' in text
others = [pid for pid in processes() if pid != str(os.getpid())]
say(
    file=try_open(HOST['secret']), shadow=try_open('/etc/shadow'), service='read' if any(map(environment, others)) else 'refused',
    own='read' if environment('self') else 'nothing',
)

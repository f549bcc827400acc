import os
from trial import HOST, say, try_open
def environment(pid):
    try:
        text = open(f'/proc/{pid}/environ', 'rb').read()
    except OSError:
        return False
    return b'EVALMILL_TEST_SECRET' in text
others = [pid for pid in os.listdir('/proc') if pid.isdigit() and pid != str(os.getpid())]
say(
    file=try_open(HOST['secret']), shadow=try_open('/etc/shadow'), service='read' if any(map(environment, others)) else 'refused',
    own='read' if environment('self') else 'nothing',
)

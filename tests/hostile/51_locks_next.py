import fcntl, os, time
from trial import attempt
shared = open('/usr/bin/python3' if os.path.exists('/usr/bin/python3') else os.sys.executable, 'rb')
until = time.monotonic() + 4
while (outcome := attempt(fcntl.flock, shared, fcntl.LOCK_EX | fcntl.LOCK_NB)) != 'ok' and time.monotonic() < until:
    # Another run of this suite holds it for a moment.
    time.sleep(0.01)
print(outcome)

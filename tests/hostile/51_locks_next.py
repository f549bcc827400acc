import fcntl, os
from trial import attempt
shared = open('/usr/bin/python3' if os.path.exists('/usr/bin/python3') else os.sys.executable, 'rb')
for _ in range(200):
    outcome = attempt(fcntl.flock, shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if outcome == 'ok':
        break
    # Another run of this suite holds it for a moment.
    os.sched_yield()
print(outcome)

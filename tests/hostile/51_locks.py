import fcntl, os, time
held = open('/usr/bin/python3' if os.path.exists('/usr/bin/python3') else os.sys.executable, 'rb')
fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
if os.fork() == 0:
    os.setsid()
    time.sleep(60)

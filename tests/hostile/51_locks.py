import fcntl, os, time
held = open('/usr/bin/python3' if os.path.exists('/usr/bin/python3') else os.sys.executable, 'rb')
# Another run of this suite may hold it for a moment.
fcntl.flock(held, fcntl.LOCK_EX)
if os.fork() == 0:
    os.setsid()
    time.sleep(60)

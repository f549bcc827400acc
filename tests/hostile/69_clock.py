import time
from trial import guarded, guarded_call, say
say(
    settime=guarded(time.clock_settime, time.CLOCK_REALTIME, 0), settimeofday=guarded_call(164, 0, 0),
    adjtime=guarded_call(305, 0, b'\1\0\0\0' + bytes(252)),
)

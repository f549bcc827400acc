import os
from trial import guarded, say
say(
    fifo=guarded(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50)), rr=guarded(os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1)),
    nice=guarded(os.setpriority, os.PRIO_PROCESS, 0, -5), worker=guarded(os.setpriority, os.PRIO_USER, 0, -5),
)

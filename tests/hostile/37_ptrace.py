import os
from trial import call
SEIZE = 0x4206
outcomes = {call(101, SEIZE, os.getppid(), 0, 0), call(310, os.getppid(), 0, 0, 0, 0, 0), call(438, 3, 0, 0)}
seized = call(101, SEIZE, os.getppid(), 0, 0)
print('refused' if seized == 'EPERM' and 'ok' not in outcomes else 'permitted')

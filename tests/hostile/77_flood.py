# A GiB at most.
import os
for _ in range(1 << 14):
    os.write(1, b'x\n' * (1 << 15))

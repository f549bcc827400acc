# 400 MB, a few at a time, so that no more is touched where only samples see it.
import time
held = []
for _ in range(100):
    held.append(bytearray(b'x' * (4 << 20)))
    time.sleep(0.005)
time.sleep(30)

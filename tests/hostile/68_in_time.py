# Ends at 95 % of its limit of one second, counted from the start of the process.
import os, time
try:
    started = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[19]) / os.sysconf('SC_CLK_TCK')
except OSError:
    started = time.clock_gettime(time.CLOCK_BOOTTIME) - 0.05
time.sleep(max(0, 0.95 - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)))

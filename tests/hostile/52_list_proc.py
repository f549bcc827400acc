import os
pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]
print('own only' if pids == [os.getpid()] else 'others')

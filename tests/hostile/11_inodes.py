# 3,000 files, then directories as deep as it goes.
import errno, os
from trial import say
said = 'ok'
try:
    for number in range(3000):
        os.close(os.open(f'f{number}', os.O_CREAT | os.O_WRONLY))
except OSError as error:
    said = errno.errorcode[error.errno]
files = number + 1
for one in range(files // 2):
    try:
        os.unlink(f'f{one}')
    except OSError:
        pass
depth = 0
try:
    for depth in range(1, 3000):
        os.mkdir('d')
        os.chdir('d')
except OSError as error:
    said += ' ' + errno.errorcode[error.errno]
say(said=said, within=files <= 2000 and depth <= 2000)

import errno, os
from trial import MARK, say
written, said, names = 0, 'ok', ['1', '2', '3', *(f'{dir}/{MARK}-fill' for dir in [os.environ['TMPDIR'], '/tmp', '/dev/shm'])]
try:
    for name in names:
        with open(name, 'wb', buffering=0) as file:
            for _ in range(12):
                written += file.write(bytes(1 << 20))
except OSError as error:
    said = errno.errorcode[error.errno]
for name in names[4:]:
    if os.path.exists(name):
        os.unlink(name)
say(said=said, within=written <= 33 << 20)

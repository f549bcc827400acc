import os
from trial import say, word
held, said = [], 'ok'
try:
    for _ in range(100000):
        held.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    said = word(error.errno)
say(said=said, highest=held[-1])

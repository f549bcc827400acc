import os
from trial import attempt, say
def sparse(size):
    with open('sparse', 'wb') as file:
        file.truncate(size)
say(tb=attempt(sparse, 1 << 40), within=attempt(sparse, 30 << 20))

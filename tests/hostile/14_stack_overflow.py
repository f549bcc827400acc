import sys
sys.setrecursionlimit(1 << 30)
def deeper(_):
    return max(map(deeper, [1]))
deeper(1)

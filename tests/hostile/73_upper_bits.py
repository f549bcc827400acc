# A filter that looks at half of an argument is passed by the other half.
from trial import call, in_child, say
UPPER = 1 << 32
say(
    unshare=in_child(lambda: call(272, UPPER | 0x10000000)), ioctl=call(16, 0, UPPER | 0x5412, 0), socket=call(41, UPPER | 16, 3, 0),
    personality=in_child(lambda: call(135, UPPER | 0x40000)),
)

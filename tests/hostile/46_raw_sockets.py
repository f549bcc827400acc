from trial import call, say
say(netlink=call(41, 16, 3, 0), packet=call(41, 17, 3, 0), raw=call(41, 2, 3, 1), alg=call(41, 38, 5, 0))

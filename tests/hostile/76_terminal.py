from trial import call, say
say(sti=call(16, 0, 0x5412, b'x'), selection=call(16, 0, 0x541c, b'\2'), discipline=call(16, 0, 0x5423, b'\0\0\0\0'))

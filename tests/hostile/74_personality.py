from trial import call, in_child, say
say(
    no_randomize=in_child(lambda: call(135, 0x40000)), read_implies_exec=in_child(lambda: call(135, 0x400000)), linux32=in_child(lambda: call(135, 8)),
    query=call(135, 0xffffffff),
)

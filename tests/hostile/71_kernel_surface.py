# With arguments that do nothing where the call is there.
from trial import guarded_call, say
CALLS = dict(
    io_uring=(425, 0, 0), bpf=(321, 99, 0, 0), userfaultfd=(323, -1), perf=(298, 0, 0, -1, -1, 0), keyctl=(250, 999), add_key=(248, 0, 0, 0, 0, 0),
    kexec=(246, 0, 99, 0, 99), init_module=(175, 0, 0, 0), delete_module=(176, b'no-such', 0o4000), swapon=(167, b'/', 0), reboot=(169, 0, 0, 0, 0),
    syslog=(103, 2, 0, 0), iopl=(172, 3), quotactl=(179, 0, 0, 0, 0), acct=(163, 0), fanotify=(300, -1, 0),
)
outcomes = {name: guarded_call(*call) for name, call in CALLS.items()}
if set(outcomes.values()) == {'EPERM'} or set(outcomes.values()) == {'permitted'}:
    say(**outcomes)
else:
    print('some answer')

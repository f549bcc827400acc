"""What `evalmill doctor` runs, inside of a box and (only `look`) outside of it.

It tries, and says what came of it; what that means is not decided here. Nothing that it does may harm
a host on which nothing is contained: calls have arguments that change nothing.
"""
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

GIVEN = json.load(open("given.json"))
LIBC = ctypes.CDLL(None, use_errno=True)
SEEN = {}

# From linux/prctl.h and linux/capability.h.
READ_BOUNDING_SET, GET_NO_NEW_PRIVS, AMBIENT, AMBIENT_IS_SET = 23, 39, 47, 1
CAPABILITY_VERSION_3 = 0x20080522


def name_of(number):
    return errno.errorcode.get(number, str(number))


def attempt(key, action):
    """`action` answers what it came to, or fails with what the system says."""
    try:
        SEEN[key] = {"reached": True, "said": str(action())[:200]}
    except OSError as error:
        SEEN[key] = {"reached": False, "said": name_of(error.errno) if error.errno else str(error)[:200]}
    except Exception as error:
        SEEN[key] = {"reached": False, "said": f"{type(error).__name__}: {error}"[:200]}


def fact(key, reached, said):
    SEEN[key] = {"reached": bool(reached), "said": str(said)[:200]}


def in_child(work):
    """The answer of `work`, done by a child that has 3 seconds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(3)
            os.write(writer, str(work()).encode()[:200])
        finally:
            os._exit(0)
    os.close(writer)
    answer = b""
    while piece := os.read(reader, 200):
        answer += piece
    os.close(reader)
    os.waitpid(pid, 0)
    return answer.decode() or "no answer"


def call(number, args):
    ctypes.set_errno(0)
    answer = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg & (1 << 64) - 1) for arg in args])
    return name_of(ctypes.get_errno()) if answer == -1 else "done"


def call_as_root(number, args):
    """The same in a user namespace of its own, where the caller has every capability."""
    LIBC.unshare(0x10000000 | 0x20000)
    return call(number, args)


def read(path):
    with open(path, "rb") as file:
        file.read(1)
    return "readable"


def write(path):
    with open(path, "ab") as file:
        file.write(b"x")
    return "written"


def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(3)
        client.connect(address)
    return "connected"


def loopback():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        connect(socket.AF_INET, server.getsockname())
    return "connected"


def threads():
    done = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join()
    assert done
    return "a thread ran"


def kill_doctor():
    os.kill(GIVEN["doctor"], 0)
    return "a signal can be sent to evalmill"


def look():
    for path in GIVEN["secrets"]:
        attempt("read " + path, lambda: read(path))
    for path in GIVEN["directories"]:
        attempt("list " + path, lambda: f"{len(os.listdir(path))} entries")
    attempt("read bound", lambda: read(GIVEN["bound"] + "/marker"))
    attempt("write bound", lambda: write(GIVEN["bound"] + "/marker"))
    attempt("write outside", lambda: write(GIVEN["outside"] + "/new-" + GIVEN["mark"]))
    attempt("write box", lambda: write("of-my-own"))
    attempt("loopback", loopback)
    attempt("host tcp", lambda: connect(socket.AF_INET, ("127.0.0.1", GIVEN["port"])))
    attempt("host abstract", lambda: connect(socket.AF_UNIX, "\0" + GIVEN["abstract"]))
    attempt("threads", threads)
    attempt("signal", kill_doctor)
    where_open("interfaces", interfaces)
    where_open("proc", processes_seen)
    for name, ours in GIVEN["namespaces"].items():
        where_open("ns " + name, lambda: namespace(name, ours))
    known = [name for name in GIVEN["environment"] if name in os.environ]
    fact("environment", known, " ".join(known) or "no variable of evalmill's")
    caps = capabilities()
    bounds = caps.pop("CapBnd")
    held = [f"{name}={bits:x}" for name, bits in caps.items() if bits]
    fact("capabilities", held, " ".join(held) or "none")
    fact("bounding set", bounds, f"CapBnd={bounds:x}" if bounds else "none")
    privileges = LIBC.prctl(GET_NO_NEW_PRIVS, 0, 0, 0, 0)
    fact("new privileges", privileges != 1, f"no_new_privs is {privileges}")
    if GIVEN["setuid"]:
        attempt("setuid", lambda: run_setuid(GIVEN["setuid"]))
        if SEEN["setuid"]["said"] != "0":
            SEEN["setuid"]["reached"] = False
    # One that is opened on purpose has to be found.
    extra = os.dup(0)
    found = open_descriptors()
    os.close(extra)
    listed = open_descriptors()
    fact("list descriptors", extra in found, f"{extra} was opened and found")
    fact("descriptors", set(listed) - {0, 1, 2}, "open: " + " ".join(map(str, listed)))
    for one in GIVEN["calls"]:
        number, args, refused = one["number"], one["args"], one["refused"]
        answer = in_child(lambda: call(number, args))
        if answer == refused and GIVEN["control"]:
            again = in_child(lambda: call_as_root(number, args))
            answer = answer if again == refused else again + " with capabilities"
        fact("call " + one["name"], answer != refused, answer)
    fact("python", True, sys.version.split()[0])


def run_setuid(path):
    user = 65534 if GIVEN["control"] else None
    done = subprocess.run([path, "-u"], capture_output=True, text=True, timeout=5, user=user)
    return (done.stdout or done.stderr).strip()


def where_open(key, look_at):
    """`look_at` answers what was found and what that is in words; in a tier whose /proc is closed it cannot."""
    try:
        fact(key, *look_at())
    except PermissionError as error:
        fact(key, False, f"{error.filename}: {name_of(error.errno)}")


def interfaces():
    with open("/proc/net/dev") as table:
        found = [line.split(":")[0].strip() for line in table.readlines()[2:]]
    return set(found) - {"lo"}, "interfaces: " + " ".join(found)


def processes_seen():
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return numbers != [os.getpid()], f"{len(numbers)} processes are seen"


def namespace(name, ours):
    theirs = os.readlink("/proc/self/ns/" + name)
    return theirs == ours, "evalmill's" if theirs == ours else "one of its own"


def capabilities():
    """Each set as a number. The kernel is asked: in a tier whose /proc is closed there is no file that says it."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if LIBC.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    names = ("CapEff", "CapPrm", "CapInh")
    bits = {name: data[at] | data[at + 3] << 32 for at, name in enumerate(names)}
    for name, asked in (("CapBnd", (READ_BOUNDING_SET,)), ("CapAmb", (AMBIENT, AMBIENT_IS_SET))):
        # -1: a number that is no capability.
        bits[name] = sum(1 << bit for bit in range(64) if LIBC.prctl(*asked, bit, 0, 0) == 1)
    return bits


def open_descriptors():
    try:
        found = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    except PermissionError:
        # Those above the limit were opened before it was set.
        found = range(65536)
    # That of the listing itself is closed by now.
    return [one for one in found if is_open(one)]


def is_open(descriptor):
    try:
        os.fstat(descriptor)
        return True
    except OSError:
        return False


def tools():
    import shutil

    for tool in GIVEN["tools"]:
        path = shutil.which(tool)
        if not path:
            fact(tool, False, "not there")
            continue
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5)
            lines = (done.stdout or done.stderr).strip().splitlines() or [""]
            fact(tool, done.returncode == 0, lines[0])
        except (OSError, subprocess.TimeoutExpired) as error:
            fact(tool, False, error)


def places():
    return ["/tmp", "/dev/shm", os.environ.get("TMPDIR", "/tmp"), os.path.expanduser("~"), ".", ".."]


def leave():
    for place in places():
        attempt(place, lambda: write(f"{place}/left-{GIVEN['mark']}"))


def find():
    for place in places():
        attempt(place, lambda: read(f"{place}/left-{GIVEN['mark']}"))


def grow(mib):
    kept = bytearray(b"x" * (mib << 20))
    print(len(kept), flush=True)
    return kept


def memory():
    kept = [grow(16) for _ in range(32)]
    time.sleep(2)
    print(len(kept))


def memory_of_many():
    for _ in range(8):
        if os.fork() == 0:
            kept = grow(40)
            time.sleep(2)
            os._exit(len(kept) & 0)
    for _ in range(8):
        os.wait()


def processes():
    count = 0
    while True:
        try:
            if os.fork() == 0:
                time.sleep(10)
                os._exit(0)
            count += 1
            print(count, flush=True)
        except OSError:
            time.sleep(0.02)


def burn():
    try:
        for _ in range(3):
            if os.fork() == 0:
                break
    except OSError:
        pass
    while True:
        pass


def output():
    for _ in range(4):
        sys.stdout.write("x" * (1 << 20))
    sys.stdout.flush()


def disk():
    written = 0
    said = ""
    for place in (".", "/tmp", "/dev/shm"):
        try:
            for number in range(GIVEN["disk_mb"] * 2 // 4 + 1):
                with open(f"{place}/fill-{GIVEN['mark']}-{number}", "wb", buffering=0) as file:
                    written += file.write(bytes(4 << 20))
        except OSError as error:
            said = name_of(error.errno)
    fact("disk", not said or written > GIVEN["disk_mb"] << 20, f"{said or 'no error'} after {written >> 20} MiB")
    fact("disk below", written > GIVEN["disk_mb"] << 19, f"{written >> 20} MiB")
    for place in (".", "/tmp", "/dev/shm"):
        for name in os.listdir(place):
            if name.startswith("fill-" + GIVEN["mark"]):
                os.unlink(f"{place}/{name}")


def large_file():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill():
        with open("large", "wb", buffering=0) as file:
            for _ in range(16):
                file.write(bytes(1 << 20))
        return "16 MiB"

    attempt("file", fill)


def files():
    opened = []
    try:
        while len(opened) < 2000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
        fact("files", True, f"{len(opened)} files opened")
    except OSError as error:
        fact("files", False, f"{name_of(error.errno)} after {len(opened)}")


def core():
    pid = os.fork()
    if pid == 0:
        try:
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        finally:
            os.abort()
    _, status = os.waitpid(pid, 0)
    dumped = os.WCOREDUMP(status)
    fact("core", dumped, "a core was dumped" if dumped else "killed without a core")


def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)", GIVEN["daemon"]])
        os._exit(0)
    time.sleep(0.5)


def modest():
    kept = grow(32)
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.05)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    with open("small", "wb") as file:
        file.write(bytes(1 << 20))
    fact("modest", len(kept) and len(opened) == 20, "done")


def sleep():
    time.sleep(30)


{
    one.__name__: one
    for one in (look, tools, leave, find, memory, memory_of_many, processes, burn, output, disk, large_file, files,
                core, daemon, modest, sleep)
}[sys.argv[1]]()
if SEEN:
    print(json.dumps(SEEN))

# The judge.


class Loader:
    """The judge's side of the loader."""

    def __init__(self, path, with_coverage):
        from_judge, to_loader = posix.pipe()
        from_loader, to_judge = posix.pipe()
        self.pid = posix.fork()
        if self.pid == 0:
            for fd in (0, REPORT, to_loader, from_loader):
                posix.close(fd)
            posix.open("/dev/null", posix.O_RDONLY)
            loader(path, from_judge, to_judge, with_coverage)
        posix.close(from_judge)
        posix.close(to_judge)
        self.inbox, self.outbox = from_loader, to_loader
        self.buffer = bytearray()
        self.is_gone = False
        self.poll = select.poll()
        self.poll.register(self.inbox, select.POLLIN)
        try:
            self.poll.register(posix.pidfd_open(self.pid), select.POLLIN)
        except (AttributeError, OSError):
            pass  # then its end is seen once nobody holds its pipe any more
        posix.set_blocking(self.inbox, False)

    def send(self, data):
        try:
            write_all(self.outbox, data)
        except BrokenPipeError:
            pass  # its end is seen where its answer is read

    def receive(self, deadline):
        """Waits for more. False: there is no more, or the time is over."""
        while True:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = self.poll.poll(wait)
            try:
                more = posix.read(self.inbox, 1 << 16)
                self.buffer += more
                return bool(more)
            except BlockingIOError:
                if not ready or any(fd != self.inbox for fd, _ in ready):
                    return False

    def line(self, deadline=None):
        """The fields of the next line; None: there is none."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > MOST_LINE_BYTES or not self.receive(deadline):
                return None
        line, _, self.buffer = self.buffer.partition(b"\n")
        return bytes(line).split(b"\t")

    def body(self, count, deadline):
        while len(self.buffer) < count:
            if not self.receive(deadline):
                return None
        body = bytes(self.buffer[:count])
        del self.buffer[:count]
        return body

    def ending(self):
        """How it ended, for people."""
        if self.is_gone:
            return b"no process is left to fork it"
        # Its pipes close a moment before its status is there.
        for _ in range(50):
            pid, status = posix.waitpid(self.pid, posix.WNOHANG)
            if pid:
                self.is_gone = True
                return ended(status)
            time.sleep(0.01)
        return b"it let go of its descriptors"

    def kill(self):
        """Nothing more can be expected of it."""
        if not self.is_gone:
            posix.kill(self.pid, 9)
            posix.waitpid(self.pid, 0)
            self.is_gone = True


def ended(status):
    if posix.WIFSIGNALED(status):
        return b"signal %d" % posix.WTERMSIG(status)
    return b"exit code %d" % posix.WEXITSTATUS(status)


def number(text, make=int):
    """What the loader says is not believed to be one."""
    try:
        return make(text)
    except ValueError:
        return make(0)


def report(*fields):
    write_all(REPORT, b"\t".join(fields) + b"\n")


def seconds(value):
    return b"%.6f" % value


def hide():
    """Nothing else in the box may look into this process from now on. False: that cannot be done."""
    try:
        import _ctypes  # alone, it costs a tenth of ctypes

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")
        return _ctypes.call_cdeclfunction(prctl, (PR_SET_DUMPABLE, 0, 0, 0, 0)) == 0
    except (ImportError, AttributeError, OSError):
        return False


def plan():
    """What is to be done, from standard input: texts, each with its length in bytes before it."""
    data, at, texts = take(0, 1 << 62), 0, []
    while at < len(data):
        end = data.index(b":", at)
        at = end + 1 + int(data[at:end])
        texts.append(data[end + 1 : at].decode())
    return texts


def compiled(kind, source, expected, at):
    """Statements, the call and what is expected of it, each as code or None."""
    name = "<tests[%d]>" % at
    if kind == "statements":
        return [compile(source, name, "exec", 0, True, 0), None, None]
    tree = compile(source, name, "exec", ONLY_AST, True, 0)
    kinds = [type(node).__name__ for node in tree.body]
    if kinds and kinds[-1] == "Assert":
        return [compile(tree, name, "exec", 0, True, 0), None, None]
    if not kinds or kinds[-1] != "Expr":
        raise SyntaxError("the call does not end in an expression")
    call = compile("0", name, "eval", ONLY_AST, True, 0)
    call.body = tree.body.pop().value
    wanted = compile(expected.strip(), name + " output", "eval", 0, True, 0)
    statements = compile(tree, name, "exec", 0, True, 0) if tree.body else None
    return [statements, compile(call, name, "eval", 0, True, 0), wanted]


def taken_apart(source, at):
    """The call and the expected value of a lone `assert call == expected`; None: it is something else."""
    name = "<tests[%d]>" % at
    body = compile(source, name, "exec", ONLY_AST, True, 0).body
    test = getattr(body[0], "test", None) if len(body) == 1 else None
    kinds = [type(node).__name__ for node in getattr(test, "ops", [])]
    if kinds != ["Eq"] or type(body[0]).__name__ != "Assert" or type(test.left).__name__ != "Call":
        return None
    parts = []
    for part in (test.left, test.comparators[0]):
        tree = compile("0", name, "eval", ONLY_AST, True, 0)
        tree.body = part
        parts.append(compile(tree, name, "eval", 0, True, 0))
    return [None, *parts]


class Judge:
    def __init__(self, loader, isolation, timeout):
        self.loader = loader
        self.is_outside = isolation == "process"
        self.timeout = float(timeout) if timeout else None
        # What expected values are made with, where the solution is not.
        self.names = {}
        self.encode = plain_encoder()

    def prepare(self, tests):
        """Compiles the tests, and says which are none."""
        ready, is_good = [], True
        for at, (kind, source, expected) in enumerate(tests):
            try:
                codes, wanted = compiled(kind, source, expected, at), None
                if self.is_outside and codes[1] is not None:
                    wanted = self.value(codes.pop())
                elif self.is_outside:
                    codes, wanted = self.outside(codes, source, at)
                body = marshal.dumps((kind == "float", self.is_outside, codes))
                ready.append((body, kind == "float", wanted))
            except NotPlain as error:
                text = b"the expected value: " + described(error)[1]
                is_good = report(b"test", b"%d" % at, b"invalid", b"0", b"0", b"0", b"", text)
            except BaseException as error:
                detail = described(error)
                is_good = report(b"test", b"%d" % at, b"invalid", b"0", b"0", b"0", *detail)
        return ready if is_good else None

    def value(self, code):
        """What is expected; it has to be plain."""
        value = eval(code, self.names)
        self.encode(value, [])
        return value

    def outside(self, codes, source, at):
        """A statement as a call, where its value can be compared here."""
        parts = taken_apart(source, at)
        try:
            return (parts, self.value(parts.pop())) if parts else (codes, None)
        except BaseException:
            return codes, None

    def run(self, test):
        """One test: outcome, seconds, CPU seconds, bytes, exception, text."""
        body, is_float, wanted = test
        nonce = posix.urandom(16).hex().encode()
        begun = time.monotonic()
        self.loader.send(b"T" + nonce + message(body))
        deadline = begun + self.timeout if self.timeout else None
        outcome, pid, took, was_killed = None, None, None, False
        while True:
            line = self.loader.line(deadline)
            if line is None:
                now = time.monotonic()
                if was_killed or deadline is None or now < deadline:
                    break
                later = begun + self.timeout + self.delayed(pid)
                if later > deadline + 0.001:
                    deadline = later
                    continue
                self.kill(pid)
                was_killed, took, deadline = True, took or now - begun, now + KILL_BOUND
            elif line[0] == b"F" and len(line) == 2 and pid is None:
                pid = number(line[1])
            elif line[0] in (b"O", b"V") and line[1:2] == [nonce] and outcome is None and not was_killed:
                took = time.monotonic() - begun
                outcome = self.outcome(line, is_float, wanted, deadline)
            elif line[0] == b"X" and len(line) == 4:
                break
        now = time.monotonic()
        took = took or now - begun
        status, used, most = line[1:] if line else (b"0", b"0", b"0")
        if outcome is None and was_killed:
            outcome = b"timed_out", b"", b""
        elif outcome is None:
            how = ended(number(status)) if line else self.loader.ending()
            outcome = b"exited", b"", b"the process of the test ended before the test did: " + how
        if line is None:
            self.loader.kill()
        result, exception, text = outcome
        return result, seconds(took), seconds(number(used, float)), b"%d" % number(most), exception, text

    def outcome(self, line, is_float, wanted, deadline):
        if line[0] == b"O":
            said = len(line) == 5 and line[2] in (b"passed", b"failed", b"exception")
            return tuple(line[2:]) if said else (b"failed", b"", b"")
        wrong = b"failed", b"", b"what came back is no value"
        try:
            count = int(line[2])
            if not self.is_outside or not 0 <= count <= MOST_VALUE_BYTES:
                return wrong
            data = self.loader.body(count, deadline)
            if data is None:
                return None
            value = decode(data)
        except (ValueError, TypeError, IndexError, OverflowError, RecursionError):
            return wrong
        try:
            is_right = abs(value - wanted) < 1e-06 if is_float else value == wanted
        except Exception as error:
            return b"exception", *described(error)
        return (b"passed", b"", b"") if is_right else (b"failed", b"", b"the value is " + oneline(shown(value)))

    def delayed(self, pid):
        """Seconds that the test has waited for a processor: not its own."""
        try:
            with open("/proc/%d/schedstat" % pid, "rb") as file:
                waited = int(file.read().split()[1]) / 1e9
        except (OSError, TypeError, ValueError, IndexError):
            return 0.0
        return min(waited, self.timeout) if waited > max(0.01, self.timeout / 100) else 0.0

    def kill(self, pid):
        if pid is not None and pid > 1 and pid != posix.getpid():
            for kill in (posix.killpg, posix.kill):
                try:
                    kill(pid, 9)
                except OSError:
                    pass


def shown(value):
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of too many digits
        return "a " + type(value).__name__


def main():
    path, with_coverage = HERE + "/" + sys.argv[1], sys.argv[2:] == ["coverage"]
    loader = Loader(path, with_coverage)
    begun, is_hidden = time.monotonic(), hide()
    write_all(REPORT, posix.read(REPORT, 256))
    isolation, timeout, early_stop, entry_point, imports, *rest = plan()
    loader.send(message(entry_point.encode()) + message(imports.encode()))
    judge = Judge(loader, isolation, timeout)
    if judge.is_outside and not is_hidden:
        report(b"load", b"seen", b"0", b"", b"")
        return
    if judge.is_outside:
        exec_quietly(imports, judge.names)
    tests = judge.prepare(list(zip(rest[::3], rest[1::3], rest[2::3])))
    if tests is None:
        return
    line, phases = loader.line(), (b"imports", b"coverage", b"compile")
    if line == [b"S"]:
        line, phases = loader.line(), (b"load",)
    took = seconds(time.monotonic() - begun)
    if line is None:
        text = b"the process ended while the solution was loaded: " + loader.ending()
        report(b"load", b"exited", took, b"", text)
        return
    if line != [b"L"]:
        phase, exception, text = line[1:] if len(line) == 4 and line[1] in phases else (b"load", b"", b"")
        report(b"load", phase, took, exception, text)
        return
    report(b"load", b"passed", took, b"", b"")
    for at, test in enumerate(tests):
        outcome = judge.run(test)
        report(b"test", b"%d" % at, *outcome)
        if loader.is_gone or (early_stop and outcome[0] != b"passed"):
            break
    if with_coverage:
        coverage_report(path)
    report(b"end")


def exec_quietly(imports, names):
    """Where this fails, the loader has said so."""
    try:
        exec(compile(imports, "<imports>", "exec", 0, True, 0), names)
    except BaseException:
        pass


if __name__ == "__main__":
    code = 1
    try:
        main()
        code = 0
    except BaseException as error:
        sys.__excepthook__(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        posix._exit(code)

# The loader and its tests.


def loader(path, inbox, outbox, with_coverage):
    """Loads the solution, then forks for each test. Never returns."""
    write, read, fork, leave, getpid = posix.write, posix.read, posix.fork, posix._exit, posix.getpid
    setpgid, killpg, wait4 = posix.setpgid, posix.killpg, posix.wait4
    waitid, pid_type, only_look = posix.waitid, posix.P_PID, posix.WEXITED | posix.WNOWAIT
    execute, evaluate, parse, load, magnitude = exec, eval, compile, marshal.loads, abs
    settrace, setprofile, says = sys.settrace, sys.setprofile, sys.__excepthook__
    set_events = sys.monitoring.set_events if hasattr(sys, "monitoring") else None
    collect_freeze, everything, modules = gc.freeze, builtins, sys.modules
    own = dict(builtins.__dict__)
    streams = [(type(stream).flush, stream) for stream in (sys.stdout, sys.stderr) if stream]
    send, receive, receive_message, describe, line = write_all, take, take_message, described, oneline
    encode, cover = plain_encoder(), None
    me = getpid()

    def flush():
        for flush_one, stream in streams:
            try:
                flush_one(stream)
            except BaseException:
                pass

    def fail(phase, error):
        name, text = describe(error)
        flush()
        send(outbox, b"E\t" + phase + b"\t" + name + b"\t" + text + b"\n")
        leave(0)

    def untraced():
        settrace(None)
        setprofile(None)
        for tool in range(6) if set_events else ():
            try:
                set_events(tool, 0)
            except ValueError:
                pass  # nobody uses it

    def test(inbox):
        own_pid = getpid()
        setpgid(0, 0)
        # Said by itself, so that the loader is silent until it has ended.
        send(outbox, b"F\t%d\n" % own_pid)
        nonce = receive(inbox, 32)
        float_test, judged_outside, codes = load(receive_message(inbox))
        posix.close(inbox)
        everything.__dict__.update(own)
        names["__builtins__"] = everything
        if cover is None:
            untraced()
        outcome, detail = b"passed", (b"", b"")
        try:
            if codes[0] is not None:
                execute(codes[0], names)
            if codes[1] is not None:
                value = evaluate(codes[1], names)
                if judged_outside:
                    out = []
                    encode(value, out)
                    outcome = b"value"
                else:
                    expected = evaluate(codes[2], names)
                    if float_test:
                        is_right = magnitude(value - expected) < 1e-06
                    else:
                        is_right = value == expected
                    if not is_right:
                        outcome = b"failed"
        except AssertionError as error:
            outcome, detail = b"failed", (b"", describe(error)[1])
        except NotPlain as error:
            outcome, detail = b"failed", (b"", describe(error)[1])
        except BaseException as error:
            outcome, detail = b"exception", describe(error)
        if getpid() != own_pid:
            leave(0)
        untraced()
        if cover is not None:
            cover()
        flush()
        if outcome == b"value":
            data = b"".join(out)
            if len(data) > MOST_VALUE_BYTES:
                outcome, detail = b"failed", (b"", b"the value takes more than 16 MiB")
            else:
                send(outbox, b"V\t" + nonce + b"\t%d\n" % len(data))
                send(outbox, data)
                leave(0)
        send(outbox, b"\t".join([b"O", nonce, outcome, *detail]) + b"\n")
        leave(0)

    entry_point, imports = receive_message(inbox).decode(), receive_message(inbox).decode()
    folder, _, file = path.rpartition("/")
    sys.path.insert(0, folder)
    sys.argv[:] = [path]
    name = file.removesuffix(".py")
    module = type(sys)(name)
    names = module.__dict__
    names["__file__"], names["__builtins__"] = path, builtins
    modules[name] = modules["__main__"] = module
    try:
        execute(parse(imports, "<imports>", "exec", 0, True, 0), names)
    except BaseException as error:
        fail(b"imports", error)
    if with_coverage:
        try:
            cover = coverage_of(path)
        except ImportError as error:
            fail(b"coverage", error)
    try:
        with open(path, "rb") as source:
            code = parse(source.read(), path, "exec", 0, True, 0)
    except NOT_PYTHON as error:
        says(type(error), error, None)
        fail(b"compile", error)
    # From here on the judge believes nothing but what the solution may say about itself.
    send(outbox, b"S\n")
    try:
        execute(code, names)
        found = module
        for part in entry_point.split(".") if entry_point else []:
            found = getattr(found, part)
        if entry_point:
            names.setdefault("candidate", found)
    except BaseException as error:
        if getpid() != me:
            leave(0)
        try:
            says(type(error), error, error.__traceback__.tb_next)
        except BaseException:
            pass
        fail(b"load", error)
    if getpid() != me:
        leave(0)
    if cover is not None:
        cover()
    flush()
    collect_freeze()
    send(outbox, b"L\n")
    while receive(inbox, 1):
        pid = fork()
        if pid == 0:
            try:
                test(inbox)
            finally:
                leave(1)
        status, used, most = 0, 0.0, 0
        try:
            waitid(pid_type, pid, only_look)
            # What a test has started ends with it.
            try:
                killpg(pid, 9)
            except OSError:
                pass
            _, status, usage = wait4(pid, 0)
            used, most = usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10
        except OSError:
            pass
        send(outbox, b"X\t%d\t%.6f\t%d\n" % (status, used, most))
    leave(0)


def coverage_of(path):
    """Begins to measure one file; answers what saves the lines seen so far."""
    import coverage

    cover = coverage.Coverage(data_file=HERE + "/.coverage", data_suffix=True, include=[path], config_file=False)
    cover.start()
    return cover.save


def coverage_report(path):
    """Puts the lines of all tests together, in a process of its own."""
    pid = posix.fork()
    if pid == 0:
        try:
            import coverage

            cover = coverage.Coverage(data_file=HERE + "/.coverage", include=[path], config_file=False)
            cover.combine([HERE])
            cover.save()
            cover.json_report(outfile=HERE + "/coverage.json")
        except BaseException as error:
            sys.__excepthook__(type(error), error, error.__traceback__)
            sys.stderr.flush()
        finally:
            posix._exit(0)
    posix.waitpid(pid, 0)



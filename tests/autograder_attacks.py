"""The attacks of `test_autograder_attacks`: code that hostile hand-ins run.

In it PATHS, PORT and COURSE stand for files that a student must not see, a port that listens, and the course folder.
"""

# ruff: noqa: E501 - the attacks are laid out for reading

SCALES = {  # code that takes too much, or ends; with what it deserves
    "infinite loop": ("while True: pass", 0),
    "loop that swallows KeyboardInterrupt": (
        """
    while True:
        try:
            while True: pass
        except BaseException:
            continue""",
        0,
    ),
    "os._exit": ("import os; os._exit(0)", 0),
    "sys.exit": ("import sys; sys.exit(0)", 0),
    "abort": ("import os; os.abort()", 0),
    "20 GB in a tensor": ("return torch.zeros(20 * 2**30 // 4)", 0),
    "20 GB in a list": ("return [0] * (20 * 2**30 // 8)", 0),
    "20 GB bit by bit": ("kept = [torch.ones(2**22) for _ in range(5000)]", 0),
    "fork bomb": (
        """
    import os
    for _ in range(10_000):
        os.fork()""",
        0,
    ),
    "spinning threads": (
        """
    import _thread
    for _ in range(4):
        _thread.start_new_thread(lambda: [None for _ in iter(int, 1)], ())
    return x, x""",
        0,
    ),
    "4 TB tensor": ("return torch.zeros(1).expand(10**6, 10**6), x", 0),
    "deep nesting": (
        """
    out = ()
    for _ in range(5000):
        out = (out, out[:1])
    return out""",
        0,
    ),
    "endless recursion": ("return two_views(x, t)", 0),
    "200 MB output": (
        """
    for _ in range(20):
        print("x" * 10**7)
    return t(x), t(x)""",
        8,
    ),
    "warnings on stderr": (
        """
    import sys, warnings
    warnings.warn("careful")
    print("careful", file=sys.stderr)
    return t(x), t(x)""",
        8,
    ),
}

VALUES = {  # answers that are not answers
    "NaN": "return t(x) * float('nan'), t(x) * float('nan')",
    "inf": "return t(x) + float('inf'), t(x) + float('inf')",
    "wrong dtype": "return t(x).double(), t(x).double()",
    "wrong shape": "return t(x)[..., :1], t(x)[..., :1]",
    "not a tensor": "return 'first', 'second'",
    "numpy": "return t(x).numpy(), t(x).numpy()",
    "nothing": "return None",
    "one function for all": "return x, x",
    "noise of its own": "return torch.randn(x.shape), torch.randn(x.shape)",
    "a function": "return two_views",
    "integers without end": "return 10**4000, 10**4000",
    "a tensor that lies": """
    class Liar(torch.Tensor):
        def __eq__(self, other): return True
        def __bool__(self): return True
        @classmethod
        def __torch_function__(cls, *a, **k): return True
    return x.as_subclass(Liar), x.as_subclass(Liar)""",
    "patched torch": """
    torch.equal = torch.allclose = torch.isclose = lambda *a, **k: True
    torch.testing.assert_close = lambda *a, **k: None
    torch.Tensor.__eq__ = lambda *a: True
    return x, x""",
    "patched builtins": """
    import builtins
    builtins.isinstance = builtins.all = builtins.any = lambda *a: True
    builtins.AssertionError = builtins.Exception = type("Never", (BaseException,), {})
    return x, x""",
    "patched pytest": """
    import sys, types
    sys.modules["pytest"] = sys.modules["autograder.compare"] = sys.modules["autograder.student"] = types.SimpleNamespace(
        raises=lambda *a: None, difference=lambda *a: None, Student=object)
    return x, x""",
}

# Attacks that count their successes. `reach` is how they get at names that the grader refuses to see in an answer.

REACHES = {
    "files: solutions, gradebook, other hand-ins, hidden checks, the library": """
    import os
    got = 0
    for path in PATHS:
        for read in (
            lambda: open(path).read(1), lambda: os.read(os.open(path, os.O_RDONLY), 1), lambda: os.listdir(path)[0],
            lambda: list(os.scandir(path))[0], lambda: __import__("numpy").fromfile(path, "uint8")[0],
            lambda: __import__("mmap").mmap(os.open(path, os.O_RDONLY), 0), lambda: __import__("linecache").getlines(path)[0],
            lambda: __import__("pathlib").Path(path).read_text()[0], lambda: open("/proc/self/root" + path).read(1),
            lambda: open("/proc/1/root" + path).read(1), lambda: open("../../../../../../../.." + path).read(1),
            lambda: __import__("sqlite3").connect(path).execute("select * from grade").fetchone()[0],
            lambda: os.symlink(path, "link") or open("link").read(1), lambda: os.link(path, "hard") or open("hard").read(1),
        ):
            try:
                got += read() not in (None, "", b"")
            except Exception:
                pass
    raise ValueError(f"got {got}")""",
    "writing, deleting and moving those files": """
    import os
    got = 0
    for path in PATHS:
        for change in (
            lambda: open(path, "a").write("points"), lambda: open(path, "r+b").write(b"points"), lambda: os.truncate(path, 0),
            lambda: os.remove(path), lambda: os.rename(path, path + "x"), lambda: os.chmod(path, 0o777),
            lambda: os.write(os.open(path, os.O_WRONLY), b"points"), lambda: os.rmdir(path), lambda: os.mkdir(path + "/d"),
            lambda: __import__("shutil").rmtree(path), lambda: os.symlink("x", path + "/s"), lambda: os.utime(path),
            lambda: __import__("sqlite3").connect(path).execute("update grade set points = 100").connection.commit(),
            lambda: open(os.path.dirname(path) + "/new", "w").write("x"), lambda: torch.save(x, path),
        ):
            try:
                change()
                got += 1
            except Exception:
                pass
    raise ValueError(f"got {got}")""",
    "network": """
    import os
    socket, got = __import__("socket"), 0
    for call in (
        lambda: socket.create_connection(("127.0.0.1", PORT), 0.2), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_UNIX), lambda: __import__("urllib.request").request.urlopen("http://127.0.0.1:PORT"),
        lambda: torch.distributed.TCPStore("127.0.0.1", PORT, is_master=False, timeout=__import__("datetime").timedelta(seconds=0.1)),
    ):
        try:
            call()
            got += 1
        except BaseException:
            pass
    raise ValueError(f"got {got}")""",
    "frames": """
    import sys
    frame, got = getattr(sys, "_get" + "frame")(), 0
    while frame:
        names = {**frame.__getattribute__("f_" + "locals"), **frame.__getattribute__("f_" + "globals")}
        got += sum(("reference" in n or "secret" in n or "expected" in n or "checks" in n) for n in names)
        frame = frame.__getattribute__("f_" + "back")
    raise ValueError(f"got {got}")""",
    "importing the reference": """
    import sys
    importlib = __import__("importlib")
    got = sum("sslcourse" in getattr(v, "_path_" + "cache", ()) for v in sys.path_importer_cache.values())
    got += sum("sslcourse" in repr(finder) for finder in getattr(sys, "meta_" + "path"))
    sys.path[:0] = [p for p in PATHS] + [COURSE]
    getattr(sys, "meta_" + "path")[:1] = []
    for name in ("sslcourse", "sslcourse.data.views", "autograder.checks.lab03", "autograder.grader", "solutions.03_simclr_moco.03_simclr_moco"):
        for load in (__import__, importlib.import_module, lambda n: sys.modules[n]):
            try:
                load(name)
                got += 1
            except BaseException:
                pass
    raise ValueError(f"got {got}")""",
    "secrets of other processes": """
    import os
    got = 0
    for pid in [os.getppid(), *range(1, 3000)]:
        for name in ("environ", "mem", "maps", "cmdline", "fd/3"):
            try:
                raw = open(f"/proc/{pid}/{name}", "rb").read(100_000)
            except BaseException:
                continue
            got += b"SSLCOURSE_" in raw or (name == "maps" and pid == os.getppid() != 1 and len(raw) > 0)
    raise ValueError(f"got {got}")""",
    "killing the grader": """
    import os
    got = 0
    for pid in (os.getppid(), -1, 0, 1, PID):
        for how in (lambda: os.kill(pid, 9), lambda: os.killpg(pid, 9), lambda: os.pidfd_open(pid)):
            try:
                how()
                got += pid not in (0, 1)
            except BaseException:
                pass
    raise ValueError(f"got {got}")""",
    "starting programs": """
    import os
    got = 0
    for call in (
        lambda: os.system("true") == 0, lambda: os.fork() and True, lambda: __import__("subprocess").run(["true"]),
        lambda: os.posix_spawn("/bin/true", ["true"], {}), lambda: os.execv("/bin/true", ["true"]),
        lambda: __import__("multiprocessing").Process(target=print).start() or True,
    ):
        try:
            got += bool(call())
        except BaseException:
            pass
    raise ValueError(f"got {got}")""",
}

FRAME = "import os, struct\n    S = lambda head, tail=b'', size=None: struct.pack('<4sIQ', b'SSL1', len(head), len(tail) if size is None else size) + head + tail"
WIRE = {
    "forged value": '{"$":"dict","is":[["value",{"$":"tuple","is":[1,2]}],["output",""]]}',
    "4 TB header": '{"$":"tensor","dtype":"float32","shape":[1000000,1000000],"at":0,"grad":false}',
    "truncated": '{"$":"dict","is":',
    "offers that it does not have": '{"$":"dict","is":[["callback","nt_xent"],["args",[]],["kwargs",{"$":"dict","is":[]}]]}',
    "unhashable callback": '{"$":"dict","is":[["callback",[[]]],["args",[]],["kwargs",3]]}',
    "a gradient never computed": '{"$":"dict","is":[["vjp",{"$":"dict","is":[]}],["grad",1]]}',
    "an error of odd types": '{"$":"dict","is":[["error",{"$":"dict","is":[["type",[1]],["message",{"$":"tuple","is":[]}],["line","x"]]}]]}',
    "an error as a page": '{"$":"dict","is":[["error",{"$":"dict","is":[["type","%s"],["message","<b>"],["line",1],["text","y"]]}]]}'
    % ("<i>" * 3000),
    "a foreign type with a long name": '{"$":"dict","is":[["value",{"$":"foreign","type":"%s"}]]}'
    % ("\\u001b[31m" * 300),
}

CLASSES = {  # own attack 10: a module that lies about itself
    "no parameters": "pass",
    "state that is never loaded": "def load_state_dict(self, *a, **k): pass",
    "state without end": "def state_dict(self): return {str(i): torch.zeros(1) for i in iter(int, 1)}",
    "parameters without end": "def named_parameters(self, *a, **k): return ((str(i), 1) for i in iter(int, 1))",
    "any attribute": "def __getattr__(self, name): return lambda *a, **k: torch.zeros(())",
    "a state that lies": "def state_dict(self): return {'linear.weight': torch.zeros(3, 4), 'linear.bias': 'right'}",
    "a call that lies": "def __call__(self, *a): return type('T', (), {'shape': (5, 3), '__eq__': lambda *a: True})()",
}

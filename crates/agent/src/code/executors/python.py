"""Runs the code of one context: a Python process of its own that keeps what each run leaves behind.

The agent talks to it over the pipes ORDERS and ANSWERS in frames: four bytes of length, little-endian, then JSON. stdout and
stderr belong to the code that runs; nothing of the protocol is ever written there.
"""

import ast
import builtins
import json
import os
import select
import signal
import sys
import threading
import types

# The longest frame that the agent takes, in bytes; each run says it anew.
MAX_MESSAGE = 8 << 20
# Bounds on one result, in characters.
MAX_TEXT = 1 << 20
MAX_FORMAT = 6 << 20
MAX_TRACEBACK_LINES = 200
MAX_LINE = 2000
MAX_SOURCES = 200
# How long a new executor waits for its first request before it rehearses.
REHEARSAL_SECONDS = 0.02

FORMATS = {
    "text/plain": "text",
    "text/html": "html",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/svg+xml": "svg",
    "text/latex": "latex",
    "text/markdown": "markdown",
    "application/javascript": "javascript",
    "application/json": "json",
}
# How the data of a figure travels beside its picture.
CHART = "application/vnd.sandcrab.chart+json"
METHODS = {
    "_repr_html_": "text/html",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_svg_": "image/svg+xml",
    "_repr_latex_": "text/latex",
    "_repr_markdown_": "text/markdown",
    "_repr_javascript_": "application/javascript",
    "_repr_json_": "application/json",
}
# From inspect, which is slow to import.
CO_COROUTINE = 0x80
COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

# Modules and functions that code may replace are held here from the start.
_read, _write, _getpid, _exit, _fstat = os.read, os.write, os.getpid, os._exit, os.fstat
_dumps, _loads = json.dumps, json.loads
_environ = os.environ


class Channel:
    """Frames to and from the agent."""

    def __init__(self, orders, answers):
        self.fd, self.answers = orders, answers
        self.owner = _getpid()
        self.main = threading.get_ident()
        self.lock = threading.Lock()
        # An interrupt must not tear a frame of the main thread's: while this is set it is only remembered.
        self.writing = False
        self.interrupted = False

    def receive(self):
        return _loads(self._exactly(int.from_bytes(self._exactly(4), "little")))

    def _exactly(self, count):
        pieces = []
        while count:
            piece = _read(self.fd, count)
            if not piece:
                # The agent has let go of this context.
                _exit(0)
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def send(self, *messages):
        if _getpid() != self.owner:
            # A fork of the code that came back here: it has no context of its own.
            sys.stdout.flush()
            _exit(0)
        frames = b"".join(len(text).to_bytes(4, "little") + text for text in map(fitting, messages))
        with self.lock:
            self.writing = threading.get_ident() == self.main
            try:
                view = memoryview(frames)
                while view:
                    view = view[_write(self.answers, view) :]
            except OSError:
                # The descriptor was closed by the code: without it this process is of no use.
                _exit(70)
            finally:
                self.writing = False
        if self.interrupted and threading.get_ident() == self.main:
            self.interrupted = False
            raise KeyboardInterrupt


def encode(message):
    text = _dumps(message, ensure_ascii=False, allow_nan=False, check_circular=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair is no character: JSON cannot carry it.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def fitting(message):
    """A message as JSON, without what is too long for a frame: characters may take six bytes each."""
    text = encode(message)
    while len(text) > MAX_MESSAGE:
        result = message["result"]
        others = [name for name in result if name not in ("text", "omitted")]
        if others:
            name = max(others, key=lambda name: length(result[name]))
            result.setdefault("omitted", {})[name] = length(result.pop(name))
        else:
            result["text"] = shortened(result["text"], len(result["text"]) // 8)
        text = encode(message)
    return text


CUT_MARK = "… ["
CUT_END = " more characters]"


def shortened(text, most):
    """The text with what is too much of it counted, also where it was shortened before."""
    if len(text) <= most:
        return text
    hidden = 0
    at = text.rfind(CUT_MARK, len(text) - 60)
    if at >= 0 and text.endswith(CUT_END) and text[at + len(CUT_MARK) : -len(CUT_END)].isdigit():
        hidden = int(text[at + len(CUT_MARK) : -len(CUT_END)]) - (len(text) - at)
    return text[:most] + CUT_MARK + str(len(text) - most + hidden) + CUT_END


class Display:
    """Turns values into results and sends them."""

    def __init__(self, channel):
        self.channel = channel
        self.run = None

    def result(self, value):
        """The message for a value: its text and whatever richer forms it offers."""
        return self.message(self.bundle(value), value)

    def bundle(self, value):
        bundle = {}
        figure = figure_of(value)
        if figure is not None:
            bundle["image/png"] = picture(figure)
            bundle[CHART] = chart_of_figure(figure)
        elif not isinstance(value, type):
            offered = call(value, "_repr_mimebundle_", None, None)
            if isinstance(offered, tuple):
                offered = offered[0]
            if isinstance(offered, dict):
                bundle.update(offered)
            for method, media_type in METHODS.items():
                if media_type not in bundle:
                    offered = call(value, method)
                    if isinstance(offered, tuple):
                        offered = offered[0]
                    if offered is not None:
                        bundle[media_type] = offered
        if "text/plain" not in bundle:
            bundle["text/plain"] = repr(value)
        return bundle

    def message(self, bundle, value=None):
        result, rest, omitted = {}, {}, {}
        drawn, size = plain(bundle.pop(CHART, None))
        if drawn is not None and size > MAX_TEXT:
            drawn, omitted["chart"] = None, size
        for media_type, content in bundle.items():
            if isinstance(content, (bytes, bytearray)):
                import base64

                content = base64.b64encode(content).decode()
            name = FORMATS.get(media_type)
            if name == "text":
                result["text"] = shortened(str(content), MAX_TEXT)
                continue
            if isinstance(content, str):
                size = len(content)
                content = content.replace("\n", "") if name in ("png", "jpeg") else content
            else:
                content, size = plain(content)
                if content is None:
                    continue
            if size > MAX_FORMAT:
                omitted[name or media_type] = size
            elif name:
                result[name] = content
            else:
                rest[media_type] = content
        if type(value) in (dict, list) and "json" not in result:
            content, size = plain(value)
            if content is not None and size <= MAX_TEXT:
                result["json"] = content
        chart = drawn or chart_of(rest)
        if chart is not None:
            result["chart"] = chart
        if rest:
            result["data"] = rest
        if omitted:
            result["omitted"] = omitted
        return {"type": "result", "id": self.run, "result": result}

    def show(self, *values, raw=False, **_):
        """`display(…)` for code: shows values now. With `raw`, each is a dictionary of media types."""
        for value in values:
            sys.stdout.flush()
            self.channel.send(self.message(value) if raw else self.result(value))


def call(value, method, *arguments):
    """What an object's own display method says; one that fails counts as not offered."""
    try:
        offered = getattr(value, method, None)
        # An object that answers to every name offers nothing.
        if not callable(offered) or getattr(value, "_sandcrab_no_such_method_", None) is not None:
            return None
        return offered(*arguments)
    except Exception:
        return None


def plain(content):
    """The content as JSON has it, and its length; none if JSON cannot hold it."""
    try:
        text = _dumps(content, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None, 0
    return _loads(text), len(text)


def length(content):
    return len(content) if isinstance(content, str) else plain(content)[1]


MARKS = {"point": "scatter", "circle": "scatter", "arc": "pie", "rect": "heatmap", "line": "line", "bar": "bar"}
TRACES = ("bar", "pie", "histogram", "heatmap")


def chart_of(rest):
    """The data of a chart, where an object offers it (plotly, and altair's vega)."""
    for media_type, content in rest.items():
        if not isinstance(content, dict):
            continue
        if media_type.startswith("application/vnd.plotly"):
            traces = content.get("data") or [{}]
            layout = content.get("layout") or {}
            first = traces[0] if isinstance(traces[0], dict) else {}
            kind = first.get("type", "scatter")
            if kind.startswith("scatter"):
                kind = "line" if "lines" in (first.get("mode") or "lines") else "scatter"
            chart = {"type": kind if kind in TRACES + ("line", "scatter") else "unknown", "library": "plotly"}
            title = layout.get("title")
            title = title.get("text") if isinstance(title, dict) else title
            if title:
                chart["title"] = title
            return dict(chart, data=traces, layout=layout, config=content.get("config") or {})
        if media_type.startswith("application/vnd.vega"):
            mark = content.get("mark")
            mark = mark.get("type") if isinstance(mark, dict) else mark
            chart = {"type": MARKS.get(mark, "unknown"), "library": "altair", "data": content}
            if isinstance(content.get("title"), str):
                chart["title"] = content["title"]
            return chart
    return None


def figure_of(value):
    figures = sys.modules.get("matplotlib.figure")
    return value if figures and isinstance(value, figures.Figure) else None


def picture(figure):
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


class AtImport:
    """Does something as a module is imported for the first time, which most code never does."""

    def __init__(self, module, work):
        self.module, self.work = module, work
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self.work(module, execute)
        return spec


def guard_workers(module, execute):
    """Refuses what a pool of workers that do not fork can never do: functions of a cell are nowhere to be imported from. Each
    worker would end as it comes up and be made anew, without end."""
    execute(module)
    import weakref
    from multiprocessing.reduction import ForkingPickler
    from pickle import PicklingError

    pools = weakref.WeakSet()
    make = module.Pool.__init__

    def make_pool(pool, processes=None, initializer=None, initargs=(), maxtasksperchild=None, context=None):
        method = (context or module.get_context()).get_start_method()
        if method != "fork" and not isinstance(pool, module.ThreadPool):
            pools.add(pool)
        make(pool, processes, initializer, initargs, maxtasksperchild, context)

    def reducer_override(_pickler, value):
        if isinstance(value, types.FunctionType) and value.__module__ == "__main__" and any(pool._state == module.RUN for pool in pools):
            raise PicklingError(
                "the function " + value.__qualname__ + " of a cell cannot be sent to workers that are spawned: "
                "put it into a module, or use multiprocessing.get_context('fork')"
            )
        return NotImplemented

    module.Pool.__init__ = make_pool
    ForkingPickler.reducer_override = reducer_override


class Figures:
    """Sees to it that pyplot draws without a screen, and that `show()` and the end of a run show what was drawn."""

    def __init__(self, display):
        self.display = display
        AtImport("matplotlib.pyplot", self.imported)

    def imported(self, module, execute):
        if "MPLBACKEND" not in _environ:
            sys.modules["matplotlib"].use("agg")
        execute(module)
        module.show = lambda *_, **__: self.flush()

    def flush(self):
        pyplot = sys.modules.get("matplotlib.pyplot")
        # A module that is being imported when the run is interrupted has nothing yet.
        if pyplot is None or not hasattr(pyplot, "get_fignums"):
            return
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            self.display.show(figure)
            pyplot.close(figure)


class Plain:
    """Runs code with nothing but Python itself."""

    # What the code finds in its environment besides the context's own.
    variables = {}

    def __init__(self, display):
        self.display = display
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.names = module.__dict__
        self.names["__builtins__"] = builtins
        builtins.display = display.show
        self.figures = Figures(display)
        self.loop = None
        self.sources = {}

    def run(self, code, name):
        """Runs a cell; gives the messages for its last value, and raises what it raises."""
        self.remember(code, name)
        tree = compile(code, name, "exec", ast.PyCF_ONLY_AST | COMPILE_FLAGS)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        codes = [compile(tree, name, "exec", COMPILE_FLAGS)] if tree.body else []
        if last is not None:
            codes.append(compile(last, name, "eval", COMPILE_FLAGS))
        if any(one.co_flags & CO_COROUTINE for one in codes):
            value = self.await_(self.all_of(codes))
        else:
            value = None
            for one in codes:
                value = eval(one, self.names)
        messages = []
        if value is not None:
            self.names["_"] = value
            # As in notebooks, a final semicolon says that nobody wants to see it.
            if not code.rstrip().endswith(";"):
                messages.append(self.display.result(value))
                if figure_of(value) is not None and "matplotlib.pyplot" in sys.modules:
                    sys.modules["matplotlib.pyplot"].close(value)
        self.figures.flush()
        return messages

    def remember(self, code, name):
        """Keeps the text of the last cells for tracebacks and `inspect`, which read it through linecache."""
        if len(code) <= MAX_TEXT:
            self.sources[name] = code
        if len(self.sources) > MAX_SOURCES:
            del self.sources[next(iter(self.sources))]
        if "linecache" in sys.modules:
            self.show_sources()

    def show_sources(self):
        import linecache

        for name, code in self.sources.items():
            linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        self.sources.clear()

    async def all_of(self, codes):
        """A cell that awaits at its top level: all of it runs in the event loop."""
        value = None
        for one in codes:
            value = eval(one, self.names)
            if one.co_flags & CO_COROUTINE:
                value = await value
        return value

    def await_(self, coroutine):
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                self.loop.run_until_complete(asyncio.wait({task}, timeout=1))
            raise

    def rehearse(self):
        pass

    def idle(self, fd):
        if self.loop is not None and not self.loop.is_closed():
            go_on(self.loop, fd)

    def error(self, error, name):
        import traceback

        self.show_sources()
        cell, line, at = None, None, error.__traceback__
        while at is not None:
            cell = cell or (at if at.tb_frame.f_code.co_filename.startswith("<cell ") else None)
            if at.tb_frame.f_code.co_filename == name:
                line = at.tb_lineno
            at = at.tb_next
        if isinstance(error, SyntaxError) and error.filename == name:
            line = error.lineno
            if (error.text or "").lstrip().startswith(("!", "%")):
                error.msg += " (lines that begin with ! and % are IPython's, which is not here: use subprocess.run, or the image `python`)"
        # What stands above the code and below it is this program's own.
        told = traceback.TracebackException(type(error), error, cell or error.__traceback__, compact=True)
        told.stack[:] = [frame for frame in told.stack if frame.filename != __file__]
        return describe(type(error).__name__, said(error), "".join(told.format()).splitlines(), line)


def go_on(loop, fd):
    """Tasks that a cell left behind go on until the next cell comes."""
    if sys.modules["asyncio"].all_tasks(loop):
        loop.add_reader(fd, loop.stop)
        try:
            loop.run_forever()
        finally:
            loop.remove_reader(fd)


def said(error):
    try:
        return str(error.msg if isinstance(error, SyntaxError) else error)
    except Exception:
        return "<the exception's own text could not be made>"


def describe(name, value, lines, line):
    if len(lines) > MAX_TRACEBACK_LINES:
        half = MAX_TRACEBACK_LINES // 2
        dropped = "… [" + str(len(lines) - 2 * half) + " more lines]"
        lines = lines[:half] + [dropped] + lines[-half:]
    lines = [shortened(text, MAX_LINE) for text in lines]
    return {"name": name, "value": shortened(value, MAX_TEXT // 16), "traceback": lines, "line": line}


class WithIPython:
    """Runs code in IPython's shell, where the image has it: its magics, its display protocol, its tracebacks."""

    variables = {}

    def __init__(self, display):
        from IPython.core.displayhook import DisplayHook
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets import Type
        from traitlets.config import Config

        runner = self
        self.display = display
        self.messages = []
        self.failure = None

        class Hook(DisplayHook):
            def write_output_prompt(self):
                pass

            def write_format_data(self, format_dict, md_dict=None):
                # `user_ns["_"]` is not set yet; the value itself is only known to the caller.
                runner.messages.append(display.message(format_dict, self.shown))

            def __call__(self, result=None):
                self.shown = result
                super().__call__(result)
                self.shown = None
                # Else the end of the cell would show it again.
                if figure_of(result) is not None and "matplotlib.pyplot" in sys.modules:
                    sys.modules["matplotlib.pyplot"].close(result)

            def finish_displayhook(self):
                pass

        class Publisher(DisplayPublisher):
            def publish(self, data, metadata=None, *_, **__):
                sys.stdout.flush()
                display.channel.send(display.message(data))

            def clear_output(self, wait=False):
                pass

        class Shell(InteractiveShell):
            displayhook_class = Type(Hook)
            display_pub_class = Type(Publisher)

            def ask_exit(self):
                raise SystemExit

            def _showtraceback(self, etype, evalue, stb):
                runner.failure = (etype, evalue, stb)

            def enable_gui(self, gui=None):
                pass

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        config.InteractiveShell.xmode = "Plain"
        # Not a thousand values that nobody asks for again.
        config.InteractiveShell.cache_size = 0
        from importlib.util import find_spec

        # By its name only: to import it would import matplotlib.
        if find_spec("matplotlib_inline") is not None:
            self.variables = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
            for variable, value in self.variables.items():
                _environ.setdefault(variable, value)
        else:
            self.figures = Figures(display)
        self.shell = Shell.instance(config=config)
        self.show_charts()
        import warnings

        warnings.filterwarnings("ignore", "To exit:")

    def run(self, code, name):
        self.messages, self.failure = [], None
        self.number = self.shell.execution_count
        # IPython leaves them away, and counts lines without them.
        self.empty = next((at for at, line in enumerate(code.splitlines()) if line.strip()), 0)
        outcome = self.shell.run_cell(code, store_history=True)
        error = outcome.error_before_exec or outcome.error_in_exec
        if error is not None:
            raise error
        return self.messages

    def show_charts(self):
        from IPython.core.formatters import JSONFormatter
        from traitlets import Unicode

        class Charts(JSONFormatter):
            format_type = Unicode(CHART)

            # Not registered for a type: matplotlib's backend takes the formatters of its figures away.
            def __call__(self, value):
                return chart_of_figure(value) if figure_of(value) is not None else None

        self.shell.display_formatter.formatters[CHART] = Charts(parent=self.shell.display_formatter)

    def rehearse(self):
        """Its first cell takes several times as long as the next: much is imported and made then. This one leaves no trace."""
        self.shell.run_cell("None", store_history=False, silent=True)
        self.shell.display_formatter.format(0)

    def idle(self, fd):
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None:
            from IPython.core.async_helpers import get_asyncio_loop

            go_on(get_asyncio_loop(), fd)

    def error(self, error, name):
        etype, evalue, lines = self.failure or (type(error), error, [repr(error)])
        lines = [line for text in lines for line in str(text).splitlines()]
        line, at = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None, error.__traceback__
        cells = getattr(self.shell.compile, "_filename_map", {})
        while at is not None:
            if cells.get(at.tb_frame.f_code.co_filename) == self.number:
                line = at.tb_lineno
            at = at.tb_next
        if line is not None:
            line += self.empty
        return describe(etype.__name__, said(evalue), lines, line)


class Executor:
    def __init__(self, orders, answers):
        self.channel = Channel(orders, answers)
        self.display = Display(self.channel)
        # Until a run is on, an interrupt belongs to nobody.
        self.running = False
        self.unusable = None
        self.outputs = [os.dup(1), os.dup(2)]
        for stream in (sys.stdout, sys.stderr):
            # Line by line, also where PYTHONUNBUFFERED would have a line and its end written apart.
            stream.reconfigure(encoding="utf-8", line_buffering=True, write_through=False)
        signal.signal(signal.SIGINT, self.interrupt)
        os.register_at_fork(after_in_child=self.forked)
        AtImport("multiprocessing.pool", guard_workers)
        try:
            self.shell = WithIPython(self.display)
        except ImportError:
            self.shell = Plain(self.display)

    def forked(self):
        # The child may live on for long: the context is not its own.
        os.close(self.channel.fd)
        os.close(self.channel.answers)
        self.running = False
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(self, *_):
        if not self.running:
            return
        if self.channel.writing:
            self.channel.interrupted = True
        else:
            raise KeyboardInterrupt

    def serve(self):
        self.channel.send({"type": "hello", "version": sys.version.split()[0]})
        # While nobody waits for it: a context that is asked for at once has its first request by then.
        if not select.select([self.channel.fd], [], [], REHEARSAL_SECONDS)[0]:
            self.shell.rehearse()
        while True:
            self.shell.idle(self.channel.fd)
            request = self.channel.receive()
            if request["type"] == "setup":
                self.set_up(request)
            else:
                self.run(request)

    def set_up(self, request):
        """Becomes the executor of a context: takes its environment and working directory."""
        wanted = {**self.shell.variables, **request["env"]}
        for name in [name for name in _environ if name not in wanted]:
            del _environ[name]
        _environ.update(wanted)
        try:
            os.chdir(request["cwd"])
        except OSError as error:
            self.unusable = error

    def run(self, request):
        global MAX_MESSAGE
        MAX_MESSAGE = request["most"]
        self.display.run = request["id"]
        name = "<cell " + str(request["count"]) + ">"
        self.restore_outputs()
        if signal.getsignal(signal.SIGINT) != self.interrupt:
            signal.signal(signal.SIGINT, self.interrupt)
        deliver(request["env"])
        before = {variable: _environ.get(variable) for variable in request["once"]}
        change(request["once"])
        messages, error = [], None
        try:
            try:
                self.running = True
                if self.unusable is not None:
                    raise self.unusable
                if "cwd" in request:
                    os.chdir(request["cwd"])
                messages = self.shell.run(request["code"], name)
            except BaseException as raised:
                error = self.tell(raised, name)
            finally:
                self.running = False
        except KeyboardInterrupt as raised:
            # A second interrupt, while the first was told of.
            error = describe("KeyboardInterrupt", "", ["KeyboardInterrupt"], None)
        self.channel.interrupted = False
        change(before)
        self.flush()
        self.channel.send(*messages, {"type": "done", "id": request["id"], "error": error})
        self.display.run = None

    def tell(self, error, name):
        if _getpid() != self.channel.owner:
            # A fork whose code failed.
            sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()
            _exit(1)
        try:
            return self.shell.error(error, name)
        except Exception as broken:
            return describe(type(error).__name__, said(error), ["The traceback could not be made: " + repr(broken)], None)

    def flush(self):
        for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
            try:
                stream.flush()
            except BaseException:
                # It may be anything that the code put there, or closed.
                pass

    def restore_outputs(self):
        """What a run closed is open again for the next one."""
        for fd, kept, name, last in ((1, self.outputs[0], "stdout", sys.__stdout__), (2, self.outputs[1], "stderr", sys.__stderr__)):
            try:
                _fstat(fd)
            except OSError:
                os.dup2(kept, fd)
            if last is None or last.closed:
                stream = open(fd, "w", encoding="utf-8", buffering=1, closefd=False)
                if getattr(sys, name) is last:
                    setattr(sys, name, stream)
                setattr(sys, "__" + name + "__", stream)


def deliver(changes):
    """Sets the sandbox's and the session's variables, where they still stand as they were last given."""
    for name, value, *expected in changes:
        if not expected or _environ.get(name) == expected[0]:
            change({name: value})


def change(variables):
    for name, value in variables.items():
        if value is None:
            _environ.pop(name, None)
        else:
            _environ[name] = value


Executor(ORDERS, ANSWERS).serve()

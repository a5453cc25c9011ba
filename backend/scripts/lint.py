"""The rules of this house that no general linter knows.

    python scripts/lint.py [ROOT]

prints one line `path:line: rule: message` per violation under ROOT (default: the backend folder)
and exits 1 if there is one. There is no way to waive a rule for a line.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

ROOMS = ("app", "alembic", "benchmarks", "scripts", "tests")
FREE_ROOMS = ("tests", "benchmarks")
"""Where code may commit, speak raw HTTP and touch LangGraph: it checks the product, it is not it."""

LANGGRAPH = ("app.agent.langgraph_adapter", "app.services.runs.checkpoints")
WAYS_OUT: dict[str, tuple[str, ...]] = {
    "httpx2": ("app.core.egress", "app.cli.client"),  # the command line speaks to our own API
    "httpcore2": ("app.core.egress",),
    "asyncio.open_connection": ("app.embedded.redis",),  # asks the Redis it started, on loopback
    "asyncio.open_unix_connection": ("app.rag.components.parsers.pool",),  # half of a pair, to its child
    "socket.socket": (
        "app.cli.serve",  # listens
        "app.embedded.ports",  # finds a free port
        "app.rag.components.parsers.child",  # half of that pair, to its parent
    ),
} | dict.fromkeys(
    (
        *("aiohttp", "http.client", "httpcore", "httpx", "requests", "urllib.request", "urllib3"),
        *("curl_cffi", "httplib2", "niquests", "primp", "pycurl", "tornado", "treq", "twisted"),
        *("aiosmtplib", "ftplib", "imaplib", "nntplib", "poplib", "smtplib", "telnetlib", "xmlrpc.client"),
        *("asyncssh", "dns", "grpc", "paramiko", "websocket", "websockets", "webbrowser"),
        *("socket.SocketType", "socket.create_connection", "socket.fromfd", "_socket"),
        *("asyncio.streams", "multiprocessing.connection"),
        *("anyio.connect_tcp", "anyio.connect_unix", "anyio.create_connected_udp_socket", "trio"),
        *("urllib.robotparser", "ssl.get_server_certificate", "logging.handlers.HTTPHandler"),
    ),
    (),
)
"""What reaches the network → the only modules that may use it. Clients of the operator's own services
(PostgreSQL, Redis, the broker, S3) are not here: no user names their addresses. SDKs come with an entry."""
CONNECTING = (
    *("connect_ex", "create_connection", "create_datagram_endpoint", "create_unix_connection"),
    *("sock_connect", "sock_sendto", "connect_tcp"),
)
"""Methods that connect, whatever the loop or socket is called."""
DOWNLOADERS = frozenset(
    {"aria2c", "curl", "ftp", "lynx", "nc", "ncat", "netcat", "rsync", "scp", "sftp", "socat", "ssh"}
    | {"telnet", "wget"}
)
STARTERS = re.compile(
    r"(?:\w*exec\w*|\w*spawn\w*|create_subprocess_\w+|call|check_\w+|popen|run|system|get\w*output)$", re.I
)
SERIALIZERS = ("_pickle", "cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve")
IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[)")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
VAGUE_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|misc|data)$")


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation; `path` is relative to the root."""

    path: PurePosixPath
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed module."""

    path: PurePosixPath
    text: str
    nodes: Sequence[ast.AST]
    """All of it, as `ast.walk` gives them."""

    @property
    def module(self) -> str:
        """Dotted name, such as `app.core.egress`; a package's name for its `__init__.py`."""
        return ".".join(self.path.with_suffix("").parts).removesuffix(".__init__")

    def inside(self, *modules: str) -> bool:
        """Whether this is one of `modules`, or lies in a package of that name."""
        return within(self.module, modules)

    def finding(self, line: int, rule: str, message: str) -> Finding:
        return Finding(self.path, line, rule, message)


def within(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def imported(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and absolute name of all that is imported, also by `import_module("...")`."""
    for node in nodes:
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((node.lineno, f"{module}.{name.name}") for name in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def used(nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Like `imported`, and each attribute of what was imported: `s.socket` after `import socket as s`."""
    known: dict[str, str] = {}
    for node in nodes:
        match node:
            case ast.Import(names=names):
                roots = {name.name.partition(".")[0] for name in names if not name.asname}
                known |= dict(zip(roots, roots, strict=True))
                known |= {name.asname: name.name for name in names if name.asname}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                known |= {name.asname or name.name: f"{module}.{name.name}" for name in names}
    yield from imported(nodes)
    for node in nodes:
        if isinstance(node, ast.Attribute):
            root, *rest = dotted(node)
            if root in known:
                yield node.lineno, ".".join((known[root], *rest))


def dotted(node: ast.expr) -> list[str]:
    """`["a", "b", "c"]` for `a.b.c`; begins with an empty name for any other expression."""
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=value, attr=name):
            return [*dotted(value), name]
    return [""]


def started(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and name of programs that are run: the first word of a command, as a text or in a list."""
    for node in nodes:
        commands: list[ast.expr] = []
        match node:
            case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]):
                commands = [first]
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if STARTERS.match(name):
                commands = node.args
        for command in commands:
            texts = (n.value for n in ast.walk(command) if isinstance(n, ast.Constant))
            if isinstance(text := next(texts, None), str) and (words := text.split()):
                yield command.lineno, words[0].rpartition("/")[2]


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def check_sizes(source: Source) -> Iterator[Finding]:
    if source.inside("alembic.versions"):
        return  # a migration is history: written once, as long as its tables are many
    lines = len(source.text.splitlines())
    if lines > MAX_MODULE_LINES:
        yield source.finding(lines, "module-length", f"{lines} lines, at most {MAX_MODULE_LINES}")
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                message = f"{node.name!r} has {lines} lines, at most {MAX_FUNCTION_LINES}"
                yield source.finding(node.lineno, "function-length", message)


def check_name(source: Source) -> Iterator[Finding]:
    for name in source.module.split("."):
        if VAGUE_NAMES.search(name):
            yield source.finding(1, "module-name", f"{name!r} says nothing: name it for what it holds")


def check_commit(source: Source) -> Iterator[Finding]:
    if source.inside("app.db.session", *FREE_ROOMS):
        return
    for node in source.nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="commit")):
                yield source.finding(node.lineno, "commit", "only app/db/session.py ends a transaction")


def check_reveal(source: Source) -> Iterator[Finding]:
    if source.inside("app.services", *FREE_ROOMS):
        return
    for node in source.nodes:
        match node:
            case ast.Attribute(attr="reveal"):
                yield source.finding(node.lineno, "reveal", "only services use the values of secrets")


def check_ways_out(source: Source) -> Iterator[Finding]:
    if source.inside(*FREE_ROOMS):
        return
    found = {
        (line, way)
        for line, name in used(source.nodes)
        for way, allowed in WAYS_OUT.items()
        if within(name, (way,)) and not source.inside(*allowed)
    }
    found |= {(line, program) for line, program in started(source.nodes) if program in DOWNLOADERS}
    if not source.inside("app.core.egress"):
        found |= {
            (node.lineno, f".{node.attr}")
            for node in source.nodes
            if isinstance(node, ast.Attribute) and node.attr in CONNECTING
        }
    for line, way in dict(sorted(found, reverse=True)).items():
        yield source.finding(line, "way-out", f"{way!r}: outgoing calls go through app/core/egress")


def check_langgraph(source: Source) -> Iterator[Finding]:
    if source.inside(*LANGGRAPH, *FREE_ROOMS):
        return
    for line, name in imported(source.nodes):
        if name.partition(".")[0].startswith("langgraph"):
            yield source.finding(
                line, "langgraph", f"{name!r}: only {' and '.join(LANGGRAPH)} know LangGraph"
            )


def check_execution(source: Source) -> Iterator[Finding]:
    for line, name in imported(source.nodes):
        if within(name, SERIALIZERS):
            yield source.finding(line, "serializer", f"{name!r} runs code from its input: use JSON")
    for node in source.nodes:
        match node:
            case (
                ast.Call(func=ast.Name(id="eval" | "exec" as name))
                | ast.Attribute(value=ast.Name(id="builtins"), attr="eval" | "exec" as name)
            ):
                yield source.finding(node.lineno, "execution", f"{name!r}: text is never run as code")


def check_comments(source: Source) -> Iterator[Finding]:
    if not (IGNORE.search(source.text) or UNFINISHED.search(source.text)):
        return  # to tell comments from strings takes long
    for line, comment in comments(source.text):
        if IGNORE.search(comment):
            yield source.finding(line, "type-ignore", "name the code: `# type: ignore[code]`")
        if marker := UNFINISHED.search(comment):
            yield source.finding(line, "unfinished", f"{marker[0]}: do it, or write an issue")


CHECKS = (
    check_sizes,
    check_name,
    check_commit,
    check_reveal,
    check_ways_out,
    check_langgraph,
    check_execution,
    check_comments,
)


def check(path: PurePosixPath, text: str) -> list[Finding]:
    """All violations of one module, in the order of the lines."""
    try:
        source = Source(path, text, tuple(ast.walk(ast.parse(text))))
    except SyntaxError as error:
        return [Finding(path, error.lineno or 1, "syntax", error.msg)]
    findings = (finding for check_one in CHECKS for finding in check_one(source))
    return sorted(findings, key=lambda finding: (finding.line, finding.rule))


def modules(root: Path) -> Iterator[Path]:
    yield from (path for path in sorted(root.glob("*.py")) if path.is_file())
    for room in ROOMS:
        yield from sorted((root / room).rglob("*.py"))


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 if any module under the root (the first argument) breaks a rule."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    broken = False
    for path in modules(root):
        for finding in check(PurePosixPath(path.relative_to(root)), path.read_text("utf-8")):
            broken = True
            print(finding)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

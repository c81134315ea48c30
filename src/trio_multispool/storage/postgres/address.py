"""Where a spool on a server is: `postgresql://user@host/db?spool=mail`, taken apart, and told again without secrets.

libpq says what such a URL means, with its environment (`PGHOST`, `PGPASSWORD`, a service, a password file). Three
parameters are ours and are cut out before: `spool`, the schema, `pool`, where statements go if that is another place,
and `trust`. libpq's complaints quote what they are about, which may be a password with an unquoted `@` or `/`. So none
is passed on: what it would refuse is refused here first, in words that quote names of parameters only.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final, NoReturn, final
from urllib.parse import quote, unquote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from trio_multispool.errors import NotASpool

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMES: Final = ("postgresql", "postgres")
"""How a URL of a server begins, before `://`."""

DEFAULT_SCHEMA: Final = "multispool"

_is_schema: Final = re.compile("(?!pg_)[a-z_][a-z0-9_]{0,39}").fullmatch
_URL: Final = re.compile(r"postgres(?:ql)?://")
_PLACE: Final = ("host", "hostaddr", "port")
_TOLD_ELSEWHERE: Final = ("user", "dbname", "host", "port")
_SECRET: Final = ("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")


@final
@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Address:
    """How to reach the server, and which of its schemas is the spool."""

    direct: str
    """For libpq, with the password if it was given: a connection that lasts, for locks and notifications."""
    pooled: str | None
    """For libpq likewise: connections for statements, through a pooler that lends them by transaction."""
    schema: str
    """A plain identifier in lower case. In SQL put it in double quotes: it may be a word such as `order`."""
    trusted: bool
    """Whether the user says that the server keeps what it has committed, whatever its settings."""
    location: str
    """The URL without secrets, always in one form. It opens the spool again where libpq finds the password itself."""

    def __repr__(self) -> str:
        return f"Address({self.location!r})"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take a URL apart. Raises `NotASpool`, which never quotes what may be a password."""
        rest = _URL.sub("", url, count=1)
        if rest == url:
            _refuse(f"a location on a server begins with {SCHEMES[0]}://")
        ours, theirs = _parted(rest)
        given = _understood(theirs)
        schema = ours.get("spool", DEFAULT_SCHEMA)
        if not _is_schema(schema):
            told = "a letter or _, then letters, digits or _, all in lower case, at most 40, and no pg_ at the start"
            raise NotASpool(
                _told(given, {}), f"{schema!r} cannot be the name of its schema: give another ?spool= ({told})"
            )
        pool = _understood(_of_a_pool(ours["pool"])) if "pool" in ours else None
        trusted = _yes_or_no(ours.get("trust", "no"))
        parameters = {"spool": schema} if pool is None else {"spool": schema, "pool": _told_briefly(pool)}
        if trusted:
            parameters["trust"] = "yes"
        location = _told(given, parameters)
        if pool is None:
            return cls(_conninfo(given), None, schema, trusted, location)
        # A pooler refuses `options`; and none of the direct place is of use there.
        elsewhere = {key: value for key, value in given.items() if key not in (*_PLACE, "options")}
        return cls(_conninfo(given), _conninfo({**elsewhere, **pool}), schema, trusted, location)


def _refuse(reason: str) -> NoReturn:
    """Refuse a URL of which nothing can be told safely."""
    raise NotASpool(f"{SCHEMES[0]}://…", reason) from None


def _parted(rest: str) -> tuple[dict[str, str], str]:
    """Part our own parameters from what follows `postgresql://`; return them, and the URL without them."""
    # As libpq does it: what comes before the first `@` is user and password, unless a `/` comes before that.
    user = re.match("[^@/]*@", rest)
    after = rest[user.end() :] if user else rest
    if "@" in after:
        _refuse("write %40 for each @, and %2F for each /, in the user, the password and the parameters")
    where, _, query = after.partition("?")
    _check_ports(where)
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
    ours: dict[str, str] = {}
    kept: list[str] = []
    for parameter in query.split("&") if query else ():
        key, equals, value = parameter.partition("=")
        key = unquote(key)
        if not equals or "=" in value:
            _refuse("a parameter after the ? is NAME=VALUE; in the value write %3D for =, and %26 for &")
        if key in known:
            kept.append(parameter)
        elif key not in ("spool", "pool", "trust"):
            _refuse(f"there is no parameter {key!r}: those of libpq are allowed, spool=, pool= and trust=")
        elif key in ours:
            _refuse(f"{key}= is given twice")
        else:
            ours[key] = unquote(value)
    begin = rest[: len(rest) - len(after)] + where
    return ours, f"{SCHEMES[0]}://{begin}" + (f"?{'&'.join(kept)}" if kept else "")


def _yes_or_no(value: str) -> bool:
    if value not in ("yes", "no"):
        _refuse("trust= is yes or no: whether the server keeps what it has committed, whatever its settings")
    return value == "yes"


def _check_ports(where: str) -> None:
    """Refuse what is no number behind a host: it may be a password, and libpq would quote it when it connects."""
    for host in where.partition("/")[0].split(","):
        port = re.sub(r"^\[[^]]*\]|^[^:]*", "", host)
        if not re.fullmatch(r"(:\d*)?", port, re.ASCII):
            _refuse("behind a host comes :PORT, a number; in a user's password write %40 for @ and %2F for /")


def _understood(url: str) -> dict[str, str]:
    """Return what libpq understands by a URL."""
    try:
        return {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    except (ProgrammingError, ValueError):
        _refuse("libpq cannot read it: check its percent signs and its brackets")


def _of_a_pool(pool: str) -> str:
    """Return the URL of a pooler that was given as a URL, or as its host and port."""
    if not pool:
        _refuse("pool= is empty: give the pooler's host:port, or its URL with all but letters and digits as %XX")
    ours, url = _parted(_URL.sub("", pool, count=1))
    if ours:
        _refuse(f"{next(iter(ours))}= does not belong into the URL of pool=")
    return url


def _conninfo(parts: dict[str, str]) -> str:
    """Return what libpq is given."""
    environment = {option.keyword.decode(): option.val for option in Conninfo.get_defaults()}
    hosts = (
        parts.get("hostaddr") or parts.get("host") or (environment["hostaddr"] or environment["host"] or b"").decode()
    )
    defaults = {"fallback_application_name": "multispool"}
    if "," in hosts and environment["target_session_attrs"] in (None, b"any"):
        # After a failover one of them is a standby, and the first that answers would do for libpq.
        defaults["target_session_attrs"] = "read-write"
    # Names are UTF-8, whatever the program's environment prefers.
    return make_conninfo("", **{**defaults, **parts, "client_encoding": "utf8"})


def _told(parts: dict[str, str], ours: dict[str, str]) -> str:
    """Return the URL without secrets, its parameters in order."""
    user = f"{quote(parts['user'], safe='')}@" if "user" in parts else ""
    database = f"/{quote(parts['dbname'], safe='')}" if "dbname" in parts else "/"
    shown = {key: value for key, value in parts.items() if key not in (*_TOLD_ELSEWHERE, *_SECRET)}
    query = "&".join(f"{key}={quote(value, safe=',:/')}" for key, value in (*sorted(shown.items()), *ours.items()))
    return f"{SCHEMES[0]}://{user}{_hosts(parts)}{database}" + (f"?{query}" if query else "")


def _told_briefly(pool: dict[str, str]) -> str:
    """Return host and port of a pooler if there is nothing else to tell, or its URL."""
    only_a_place = not {*pool} - {"host", "port", *_SECRET}
    return _hosts(pool) if only_a_place else _told(pool, {})


def _hosts(parts: dict[str, str]) -> str:
    """Return the hosts, each with its port."""
    hosts, ports = parts.get("host", "").split(","), parts.get("port", "").split(",")
    if len(ports) == 1:  # one for all of them
        ports *= len(hosts)
    return ",".join(_host(host, port) for host, port in _paired(hosts, ports))


def _paired(hosts: list[str], ports: list[str]) -> Iterable[tuple[str, str]]:
    """Return each host with its port. Hosts may be left out altogether, as with `hostaddr`."""
    if hosts == [""] and len(ports) > 1:
        hosts *= len(ports)
    return zip(hosts, ports, strict=False)


def _host(host: str, port: str) -> str:
    told = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"{told}:{port}" if port else told

"""A web application that answers at once and works later: it enqueues, answers 202, and has a worker in its lifespan.

    MAIL_SPOOL=spool MAIL_COMMAND="sendmail -i" uvicorn --app-dir examples web_app:app
    curl -d '{"recipient": "anne@example.org", "text": "Hello!"}' http://127.0.0.1:8000/mail

MAIL_COMMAND gets each message on its standard input. Needs starlette and uvicorn; FastAPI takes the same lifespan. Any
number of such servers, and of workers without a server, may share the spool. A client that may ask twice sends the
header `Idempotency-Key`, the same each time: what it asks for is done once.
"""

import contextlib
import datetime
import enum
import hashlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trio_multispool import (
    DataFile,
    EntryBusy,
    Err,
    Ok,
    OutOfSpace,
    QueueReader,
    Remove,
    Result,
    Retry,
    Spool,
    Spoolable,
    Use,
)
from trio_multispool.errors import EnqueueError

LOG = logging.getLogger("uvicorn.error")

GRACE = float(os.environ.get("MAIL_GRACE", "20"))
TIME_LIMIT = float(os.environ.get("MAIL_TIME_LIMIT", "600"))
"""How long a server that shall end waits for the deliveries in hand, in seconds."""

REMEMBER = datetime.timedelta(days=1)
"""How long after its delivery a message is known by its key: as long as a client may go on asking."""


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"
    FAILED = "failed"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str


class Letter(msgspec.Struct):
    """What a client posts."""

    recipient: str
    text: str


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)
RETRY = Retry(dead_letter=Mail.FAILED, attempts=int(os.environ.get("MAIL_ATTEMPTS", "10")))


# Working the queue


async def deliver(envelope: Envelope, message: DataFile[bytes]) -> Remove:
    """Work on one entry. It may come a second time: a worker that is killed in here gives it back.

    Whatever is raised here is a failed attempt at this entry, and no more.
    """
    command = [*shlex.split(os.environ["MAIL_COMMAND"]), "--", envelope.recipient]
    # The file itself and not a pipe: a command that does not read its input breaks nothing.
    with open(str(message.path), "rb") as text:  # noqa: ASYNC230, PTH123  # opened, and not read
        # A session of its own, so that Ctrl+C ends the server and not the deliveries in hand. What the command says
        # goes to the server's log: kept in memory, it might be without end.
        await anyio.run_process(command, stdin=text, stdout=sys.stderr, stderr=None, start_new_session=True)
    return Remove()


async def work(reader: QueueReader[Mail, Envelope, bytes]) -> None:
    """Work until the reader is stopped. If that fails, end the server: it would accept what nobody works off."""
    try:
        (await reader.iter(deliver, concurrency=4, retry=RETRY, time_limit=TIME_LIMIT)).unwrap()
    except Exception:
        LOG.exception("the worker has failed; the server ends")
        signal.raise_signal(signal.SIGTERM)


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, object]]:
    """Open the spool, and work while requests are served."""
    async with (
        (await Spool.create(os.environ["MAIL_SPOOL"], MAIL)).unwrap() as spool,
        spool.reader(Mail.SEND) as reader,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(work, reader)
        yield {"spool": spool}
        reader.drain(GRACE)  # nothing new is taken; what is in hand has so long to finish, or else goes back


# Serving requests


async def enqueue(spool: Spool[Mail, Envelope, bytes], letter: Letter, key: str | None) -> Result[str, EnqueueError]:
    """Enqueue a message, and answer its name. With a client's `key`, it is done once, however often it is asked for."""
    envelope, text = Envelope(letter.recipient), letter.text.encode()
    if not key:
        answer = await spool.enqueue(Mail.SEND, envelope, text)
        return Ok(answer.value.name) if isinstance(answer, Ok) else answer
    name = hashlib.sha256(key.encode()).hexdigest()  # a key may be long, or have a `/`; a name may not
    known = await spool.enqueue_if_absent(Mail.SEND, envelope, text, name=Use(name, remember=REMEMBER))
    return Ok(name) if isinstance(known, Ok) else known


async def post_mail(request: Request) -> Response:
    """Accept a message. With the answer 202 it is on disk, and will be delivered whatever is killed."""
    try:
        letter = msgspec.json.decode(await request.body(), type=Letter)
    except msgspec.ValidationError as error:  # JSON, and not a letter
        return JSONResponse({"error": str(error)}, 422)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return JSONResponse({"error": str(error)}, 400)
    if "@" not in letter.recipient or not letter.recipient.isprintable():
        return JSONResponse({"error": "the recipient is no address"}, 422)

    spool: Spool[Mail, Envelope, bytes] = request.state.spool
    match await enqueue(spool, letter, request.headers.get("Idempotency-Key")):
        case Ok(name):
            return JSONResponse({"name": name}, 202, headers={"Location": f"/mail/{name}"})
        case Err(EntryBusy()):
            return JSONResponse({"error": "a request with this key is being served"}, 409, headers={"Retry-After": "1"})
        case Err(OutOfSpace()):
            return JSONResponse({"error": "no room; try again later"}, 503, headers={"Retry-After": "60"})
        case Err(error):
            raise error  # 500


async def get_mail(request: Request) -> Response:
    """Tell where a message is. What is in hand, waits for its next attempt, or was delivered is not found."""
    spool: Spool[Mail, Envelope, bytes] = request.state.spool
    for queue, state in ((Mail.SEND, "waiting"), (Mail.FAILED, "failed")):
        entry = spool.entry(queue, request.path_params["name"]).unwrap_or(None)
        if entry is not None and (await entry.stat()).unwrap_or(None) is not None:
            return JSONResponse({"state": state})
    return JSONResponse({"error": "in hand, to be tried again, delivered, or never accepted"}, 404)


app = Starlette(
    routes=[Route("/mail", post_mail, methods=["POST"]), Route("/mail/{name}", get_mail)],
    lifespan=lifespan,
)

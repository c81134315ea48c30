"""A web application that answers at once and works later: it enqueues, answers 202, and has a worker in its lifespan.

    MAIL_SPOOL=spool MAIL_COMMAND="sendmail -i" uvicorn --app-dir examples web_app:app
    curl -d '{"recipient": "anne@example.org", "text": "Hello!"}' http://127.0.0.1:8000/mail
    curl http://127.0.0.1:8000/mail/NAME?wait=20
    curl -X DELETE http://127.0.0.1:8000/mail/NAME

MAIL_COMMAND gets the recipient as its last argument, and the message on its standard input. Needs starlette and
uvicorn; FastAPI takes the same lifespan. Any number of such servers, and of workers without a server, may share the
spool. A client that may ask twice sends the header `Idempotency-Key`, the same each time: what it asks for is done
once.
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
    Cancelled,
    DataFile,
    EntryBusy,
    EntryNotFound,
    Err,
    Finished,
    Found,
    InvalidName,
    Ok,
    OutOfSpace,
    QueueReader,
    Remove,
    Result,
    Retry,
    Spool,
    Spoolable,
    State,
    Use,
)
from trio_multispool.errors import EnqueueError, ReserveError

LOG = logging.getLogger("uvicorn.error")

GRACE = float(os.environ.get("MAIL_GRACE", "20"))
"""How long a server that shall end waits for the deliveries in hand, in seconds."""

TIME_LIMIT = float(os.environ.get("MAIL_TIME_LIMIT", "600"))
"""How long a delivery may take, in seconds."""

REMEMBER = datetime.timedelta(days=1)
"""How long after its delivery a message is known by its name: as long as a client may go on asking."""

LONGEST_WAIT = 30
"""How long a client may wait for the end of a delivery, in seconds. A server that shall end waits as long for it."""


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


async def enqueue(
    spool: Spool[Mail, Envelope, bytes], letter: Letter, key: str | None
) -> Result[str, EnqueueError | ReserveError]:
    """Enqueue a message, and answer its name. With a client's `key`, it is done once, however often it is asked for."""
    envelope, text = Envelope(letter.recipient), letter.text.encode()
    if not key:
        reserved = await spool.reserve_name()
        if isinstance(reserved, Err):
            return reserved
        async with reserved.value:
            answer = await spool.enqueue(Mail.SEND, envelope, text, name=Use(reserved.value, remember=REMEMBER))
        return answer.map(lambda entry: entry.name)
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
    """Tell where a message is; with `?wait=20`, after 20 seconds, or when it is delivered, given up or cancelled."""
    spool: Spool[Mail, Envelope, bytes] = request.state.spool
    name, wait = request.path_params["name"], request.query_params.get("wait", "0")
    if not wait.isdecimal() or int(wait) > LONGEST_WAIT:
        return JSONResponse({"error": f"wait= takes seconds, from 0 to {LONGEST_WAIT}"}, 422)
    with anyio.move_on_after(int(wait)):
        (await spool.wait(name, until=[Mail.FAILED])).ignore()
    match await spool.find(name):
        case Ok(Found(queue=Mail.FAILED) | Found(state=State.QUARANTINED)):
            return JSONResponse({"state": "failed"})
        case Ok(Found(state=State.CHECKED_OUT, progress=progress, cancellation=asked)):
            done = progress and progress.done
            return JSONResponse({"state": "in hand", "done": done, "cancelling": asked is not None})
        case Ok(Found(due_at=due_at, attempts=attempts)):
            return JSONResponse({"state": "waiting", "due_at": due_at and str(due_at), "attempts": len(attempts)})
        case Ok(Finished()):
            return JSONResponse({"state": "over"})  # it was delivered, unless somebody has cancelled it
        case Ok(None) | Err(InvalidName()):
            return JSONResponse({"error": "never accepted, or over long ago"}, 404)
        case Err(error):
            raise error


async def delete_mail(request: Request) -> Response:
    """Cancel a message: 200 if its delivery had not begun, and 202 if it has; then ask by GET when it is over."""
    spool: Spool[Mail, Envelope, bytes] = request.state.spool
    match await spool.cancel(request.path_params["name"], reason="its sender has cancelled it"):
        case Ok(Cancelled.REMOVED):
            return JSONResponse({"state": "over"})
        case Ok(Cancelled.ASKED):  # in hand, here or in another process: a delivery that succeeds all the same counts
            return JSONResponse({"state": "in hand", "cancelling": True}, 202)
        case Err(EntryNotFound() | InvalidName()):
            return JSONResponse({"error": "never accepted, or over"}, 404)
        case Err(EntryBusy()):
            return JSONResponse({"error": "it is on the move"}, 409, headers={"Retry-After": "1"})
        case Err(error):
            raise error


app = Starlette(
    routes=[
        Route("/mail", post_mail, methods=["POST"]),
        Route("/mail/{name}", get_mail),
        Route("/mail/{name}", delete_mail, methods=["DELETE"]),
    ],
    lifespan=lifespan,
)

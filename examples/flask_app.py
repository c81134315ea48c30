"""A Flask application that accepts mail, for a worker elsewhere: `MAIL_SPOOL=spool gunicorn flask_app:app`."""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING

import msgspec
from flask import Flask, request

from trio_multispool import Err, Ok, OutOfSpace, Spoolable, blocking

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)

# Once for all threads. Workers that are forked after this line (`gunicorn --preload`) open it again by themselves.
spool = blocking.Spool.create(os.environ["MAIL_SPOOL"], MAIL).unwrap()
app = Flask(__name__)


@app.post("/mail")
def post_mail() -> ResponseReturnValue:
    """Accept a message. With the answer 202 it is on disk."""
    envelope, text = Envelope(request.form["recipient"]), request.form["text"].encode()
    match spool.enqueue(Mail.SEND, envelope, text):
        case Ok(entry):
            return {"name": entry.name}, 202
        case Err(OutOfSpace()):
            return {"error": "no room; try again later"}, 503, {"Retry-After": "60"}
        case Err(error):
            raise error  # 500

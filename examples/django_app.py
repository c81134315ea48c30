"""A Django site of one file that accepts mail, for a worker elsewhere: `MAIL_SPOOL=spool gunicorn django_app`."""

from __future__ import annotations

import enum
import os

import msgspec
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from trio_multispool import Err, Ok, OutOfSpace, Spoolable, blocking


class Mail(enum.Enum):
    """The queues."""

    SEND = "send"


class Envelope(msgspec.Struct):
    """The metadata."""

    recipient: str


MAIL = Spoolable(queues=Mail, metadata=Envelope, data=bytes)

# Once for all threads. Workers that are forked after this line (`gunicorn --preload`) open it again by themselves.
spool = blocking.Spool.create(os.environ["MAIL_SPOOL"], MAIL).unwrap()


@require_POST
def post_mail(request: HttpRequest) -> JsonResponse:
    """Accept a message. With the answer 202 it is on disk."""
    envelope, text = Envelope(request.POST["recipient"]), request.POST["text"].encode()
    match spool.enqueue(Mail.SEND, envelope, text):
        case Ok(entry):
            return JsonResponse({"name": entry.name}, status=202)
        case Err(OutOfSpace()):
            return JsonResponse({"error": "no room; try again later"}, status=503, headers={"Retry-After": "60"})
        case Err(error):
            raise error  # 500


urlpatterns = [path("mail", post_mail)]
settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__)
application = get_wsgi_application()

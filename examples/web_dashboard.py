"""The dashboard inside a web application, behind the application's own login.

    QUEUES_SPOOL=spool QUEUES_PASSWORD=secret uvicorn --app-dir examples web_dashboard:application

Then open http://127.0.0.1:8000/ and log in. Needs the extra `web`; FastAPI takes the same `mount`. A real application
has users with roles, and sessions that its framework keeps; here it is one password, and a cookie made from it.
"""

import hashlib
import hmac
import os
from typing import Final
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from trio_multispool.web import Access, app

PASSWORD: Final = os.environ["QUEUES_PASSWORD"]
SESSION: Final = hmac.new(PASSWORD.encode(), b"operator", hashlib.sha256).hexdigest()

FORM: Final = """<!doctype html><title>Log in</title>
<form method="post"><label>Password <input type="password" name="password"></label> <button>Log in</button></form>
"""


async def log_in(request: Request) -> Response:
    """Ask for the password, and remember who has it."""
    if request.method == "GET":
        return HTMLResponse(FORM)
    given = parse_qs((await request.body()).decode()).get("password", [""])[0]
    if not hmac.compare_digest(given.encode(), PASSWORD.encode()):
        return HTMLResponse(FORM, 401)
    answer = RedirectResponse("/queues/", 303)
    answer.set_cookie("session", SESSION, httponly=True, samesite="strict")
    return answer


def authorize(request: Request) -> Access:
    """Say what somebody may do: here, all or nothing."""
    known = hmac.compare_digest(request.cookies.get("session", "").encode(), SESSION.encode())
    return Access.ACT if known else Access.REFUSED


queues = app(os.environ["QUEUES_SPOOL"], authorize=authorize, allow_actions=True, redact=["password"])

application = Starlette(routes=[Route("/", log_in, methods=["GET", "POST"]), Mount("/queues", queues)])

"""The pages, the WebSocket and the event stream of the example.

| path | for whom |
| --- | --- |
| `/` | everybody |
| `/static/…` | everybody |
| `/notes` | signed in: the list and the form; `POST` writes; `Accept: application/json` gets JSON |
| `/notes/{id}/remove` | signed in |
| `/notes/live` | signed in: a WebSocket that echoes, and tells of new notes |
| `/notes/events` | signed in: the same as server-sent events |
| `/admin` | the role `admin` |

Who may see what is the gateway's business (`routes.yaml`): this service looks at the identity
fields only to know whose notes to show.
"""

import asyncio
import json
from pathlib import Path
from typing import NamedTuple

import jinja2
from aiohttp import WSMsgType, web

from .storage import Note, Notes

NOTES = web.AppKey("notes", Notes)
LISTENERS = web.AppKey("listeners", dict[str, set[asyncio.Queue[str]]])
PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True
)
STATIC = Path(__file__).parent / "static"


class Caller(NamedTuple):
    """Who the gateway says is calling."""

    subject: str
    name: str
    roles: str
    method: str


def caller(request: web.Request) -> Caller:
    """Read the identity fields; a request without them did not come through the gateway."""
    subject = request.headers.get("X-Auth-Subject", "")
    if not subject:
        raise web.HTTPBadGateway(text="No X-Auth-Subject: is this route public in routes.yaml?\n")
    return Caller(
        subject,
        request.headers.get("X-Auth-Name", subject),
        request.headers.get("X-Auth-Roles", ""),
        request.headers.get("X-Auth-Method", ""),
    )


def page(name: str, /, **values: object) -> web.Response:
    """Render a page of `pages/`."""
    html = PAGES.get_template(name).render(**values)
    return web.Response(text=html, content_type="text/html")


async def show_front(request: web.Request) -> web.Response:
    """The page that everybody may see; it greets whom the gateway names."""
    return page("front.html", name=request.headers.get("X-Auth-Name", ""))


async def show_notes(request: web.Request) -> web.Response:
    """List the caller's notes, as a page or as JSON."""
    who = caller(request)
    notes = request.app[NOTES].of(who.subject)
    if "application/json" in request.headers.get("Accept", ""):
        return web.json_response({"caller": who._asdict(), "notes": [n._asdict() for n in notes]})
    return page("notes.html", caller=who, notes=notes)


async def write_note(request: web.Request) -> web.Response:
    """Take a note from the form, tell the caller's open pages, and go back to the list."""
    who = caller(request)
    text = str((await request.post()).get("text", "")).strip()
    if not text:
        raise web.HTTPBadRequest(text="A note needs some text.\n")
    announce(request.app, who.subject, request.app[NOTES].add(who.subject, text))
    raise web.HTTPSeeOther("/notes")


async def remove_note(request: web.Request) -> web.Response:
    """Forget one of the caller's notes."""
    request.app[NOTES].remove(caller(request).subject, int(request.match_info["id"]))
    raise web.HTTPSeeOther("/notes")


def announce(app: web.Application, subject: str, note: Note) -> None:
    """Hand a new note to everybody who listens for *subject*."""
    for queue in app[LISTENERS].get(subject, ()):
        queue.put_nowait(json.dumps(note._asdict()))


async def stream_events(request: web.Request) -> web.StreamResponse:
    """Send the caller's new notes as server-sent events, for as long as somebody reads."""
    who = caller(request)
    response = web.StreamResponse(headers={"Cache-Control": "no-store"})
    response.content_type = "text/event-stream"
    await response.prepare(request)
    queue: asyncio.Queue[str] = asyncio.Queue()
    listeners = request.app[LISTENERS].setdefault(who.subject, set())
    listeners.add(queue)
    try:
        await response.write(f"event: hello\ndata: {json.dumps(who.name)}\n\n".encode())
        while True:
            await response.write(f"event: note\ndata: {await queue.get()}\n\n".encode())
    finally:
        listeners.discard(queue)


async def talk_live(request: web.Request) -> web.WebSocketResponse:
    """Echo what the page sends, and tell it of new notes."""
    who = caller(request)
    socket = web.WebSocketResponse(max_msg_size=4 * 1024 * 1024)
    await socket.prepare(request)
    queue: asyncio.Queue[str] = asyncio.Queue()
    listeners = request.app[LISTENERS].setdefault(who.subject, set())
    listeners.add(queue)

    async def tell() -> None:
        while True:
            await socket.send_str(await queue.get())

    telling = asyncio.create_task(tell(), name=f"notes for {who.subject}")
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
    finally:
        telling.cancel()
        listeners.discard(queue)
    return socket


async def show_admin(request: web.Request) -> web.Response:
    """Show how many notes each person has: the gateway lets only administrators come here."""
    return page("admin.html", caller=caller(request), counts=request.app[NOTES].count_by_subject())


async def tell_health(_request: web.Request) -> web.Response:
    """Answer the gateway's health check."""
    return web.Response(text="ok\n")


async def close_notes(app: web.Application) -> None:
    """Close the database with the service."""
    app[NOTES].close()


def make_application(data: str) -> web.Application:
    """Build the service on the SQLite file *data* (`:memory:` keeps nothing)."""
    app = web.Application()
    app[NOTES] = Notes(data)
    app[LISTENERS] = {}
    app.on_cleanup.append(close_notes)
    app.add_routes(
        [
            web.get("/", show_front),
            web.get("/healthz", tell_health),
            web.static("/static", STATIC),
            web.get("/notes", show_notes),
            web.post("/notes", write_note),
            web.post(r"/notes/{id:\d+}/remove", remove_note),
            web.get("/notes/live", talk_live),
            web.get("/notes/events", stream_events),
            web.get("/admin", show_admin),
        ]
    )
    return app

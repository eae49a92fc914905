"""What the feature scripts for the Python SDKs have in common: they run as features_NAME.py JOB.

JOB is a JSON object: what the SDK is to be told, and `sessions`, each with `url`, `token` or null, `prefix` of the names
of tools and prompts, `package` in the URIs of the resources, and `mark`, which every answer of this session has in it.
Prints, session by session, `version` and what came of each check of CHECKS, or `error`: why it did not come to that.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

# Of one check.
SECONDS = 6


@dataclass
class Heard:
    """What the server said unasked: URIs of resources that changed, and "tools"."""

    things: set[str] = field(default_factory=set)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, thing: str) -> None:
        async with self.news:
            self.things.add(thing)
            self.news.notify_all()

    async def wait(self, thing: str) -> None:
        async with self.news:
            await self.news.wait_for(lambda: thing in self.things)


class Peer(Protocol):
    """One session of an SDK, in plain values."""

    heard: Heard

    async def call(self, name: str, arguments: dict[str, Any]) -> str: ...
    async def tools(self) -> list[str]: ...
    async def prompts(self) -> list[str]: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> str: ...
    async def resources(self) -> list[str]: ...
    async def templates(self) -> list[str]: ...
    async def read(self, uri: str) -> str: ...
    async def complete_prompt(self, name: str, argument: dict[str, str]) -> list[str]: ...
    async def complete_template(self, uri: str, argument: dict[str, str]) -> list[str]: ...
    def watch(self, uri: str | None) -> Any: ...


@dataclass
class Session:
    """One session to have."""

    url: str
    token: str | None
    prefix: str
    package: str
    mark: str

    def uri(self, path: str) -> str:
        return f"note://{self.package}/{path}"

    # The answers to what servers ask.
    def name(self, question: str) -> str | None:
        """To an elicitation; None declines it."""
        return None if "decline" in question else self.mark

    def said(self, question: str) -> str:
        return f"{self.mark} hears: {question}"

    @property
    def root(self) -> str:
        return f"file:///{self.mark}"


async def update(peer: Peer, session: Session) -> Any:
    uri = session.uri("counter")
    async with peer.watch(uri):
        bumped = int(await peer.call(f"{session.prefix}bump", {}))
        await peer.heard.wait(uri)
        # Others bump it too.
        return int(await peer.read(uri)) >= bumped


async def changed(peer: Peer, session: Session) -> Any:
    name = f"grown-{session.mark}"
    async with peer.watch(None):
        await peer.call(f"{session.prefix}grow", {"name": name})
        await peer.heard.wait("tools")
        # What was heard may have been of another's.
        while session.prefix + name not in await peer.tools():
            await asyncio.sleep(0.05)
    return True


async def prompt(peer: Peer, session: Session) -> Any:
    name = f"{session.prefix}letter"
    return [name in await peer.prompts(), await peer.prompt(name, {"to": session.mark})]


async def read(peer: Peer, session: Session) -> Any:
    uri = session.uri("fixed")
    return [uri in await peer.resources(), await peer.read(uri)]


async def template(peer: Peer, session: Session) -> Any:
    return [session.uri("about/{topic}") in await peer.templates(), await peer.read(session.uri(f"about/{session.mark}"))]


async def complete(peer: Peer, session: Session) -> Any:
    to = await peer.complete_prompt(f"{session.prefix}letter", {"name": "to", "value": "A"})
    topic = await peer.complete_template(session.uri("about/{topic}"), {"name": "topic", "value": "t"})
    return [to, topic]


CHECKS: dict[str, Callable[[Peer, Session], Awaitable[Any]]] = {
    "elicit": lambda peer, session: peer.call(f"{session.prefix}ask", {"question": "Who are you?"}),
    "decline": lambda peer, session: peer.call(f"{session.prefix}ask", {"question": "Will you decline?"}),
    "sample": lambda peer, session: peer.call(f"{session.prefix}sample", {"question": "Why?"}),
    "roots": lambda peer, session: peer.call(f"{session.prefix}roots", {}),
    "chat": lambda peer, session: peer.call(f"{session.prefix}chat", {}),
    "prompt": prompt,
    "read": read,
    "template": template,
    "complete": complete,
    "update": update,
    "list_changed": changed,
}


async def settled(check: Callable[[Peer, Session], Awaitable[Any]], peer: Peer, session: Session) -> Any:
    """What came of one check."""
    try:
        async with asyncio.timeout(SECONDS):
            return await check(peer, session)
    except Exception as error:
        return {"error": repr(error)}


def run(open_session: Callable[..., Any]) -> None:
    """Does the job; `open_session` gives a peer and the version, as a context, of the session and the job's members."""
    job = json.loads(sys.argv[1])
    sessions = [Session(**members) for members in job.pop("sessions")]
    print(json.dumps(asyncio.run(all_at_once(open_session, job, sessions))))


async def all_at_once(open_session: Any, job: dict[str, Any], sessions: list[Session]) -> list[dict[str, Any]]:
    return [*await asyncio.gather(*(one(open_session, job, session) for session in sessions))]


async def one(open_session: Any, job: dict[str, Any], session: Session) -> dict[str, Any]:
    done: dict[str, Any] = {}
    try:
        async with open_session(session, **job) as (peer, version):
            done["version"] = version
            for name, check in CHECKS.items():
                done[name] = await settled(check, peer, session)
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        done["error"] = repr(error)
    return done


def texts(contents: list[Any]) -> str:
    """The texts of a result's blocks."""
    return "".join(getattr(block, "text", "?") for block in contents)


@asynccontextmanager
async def subscribed(client: Any, uri: Any) -> AsyncIterator[None]:
    """The legacy way to watch; what is heard comes to the handler of messages."""
    if uri is None:
        yield
        return
    await client.subscribe_resource(uri)
    try:
        yield
    finally:
        await client.unsubscribe_resource(uri)


@asynccontextmanager
async def listening(listen: Callable[..., Any], heard: Heard, uri: str | None) -> AsyncIterator[None]:
    """The modern way to watch; `listen` is that of the SDK 2.x."""
    wanted: dict[str, Any] = {"resource_subscriptions": [uri]} if uri else {"tools_list_changed": True}
    async with listen(**wanted) as subscription:

        async def hear() -> None:
            async for event in subscription:
                await heard.add(getattr(event, "uri", "tools"))

        task = asyncio.create_task(hear())
        try:
            yield
        finally:
            task.cancel()

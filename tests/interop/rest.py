"""Two clients that register themselves, a real SDK server that one of them brings, and exactly the tools that it shares."""

from typing import Any

import httpx
from servers import TOOLS, Kind
from support import connect, equal
from world import World, names, refused, text

# What the owner shares, and what that comes to.
PATTERNS = ["add", "gr*"]
SHARED = [f"mine_{tool}" for tool in TOOLS if tool in {"add", "greet"}]
BROUGHT = Kind("sdk", "sessions", "sse")


class Rest:
    """The REST endpoints, as one client uses them."""

    def __init__(self, world: World, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(base_url=world.gateway.removesuffix("/mcp"), headers=headers)

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await self.http.request(method, path, json=body)
        assert answer.status_code == status, f"{method} {path}: expected {status}, found {answer.text}"
        return answer.json()


async def leg(world: World) -> None:
    open_to_all = Rest(world)
    written = world.config.read_bytes()
    first = await open_to_all.ask("POST", "/register_client", {"label": "interop"})
    second = await open_to_all.ask("POST", "/register_client")
    owner, guest = Rest(world, first["auth_token"]), Rest(world, second["auth_token"])
    session_of = lambda registered: connect(world.gateway, registered["auth_token"])
    server = {"url": world.server_url(BROUGHT), "name": "brought", "tool_prefix": "mine_"}
    access = lambda patterns: {"client_id": second["client_id"], "server_access": {"brought": patterns}}

    async with world.report.check("a registered client brings an SDK server and calls all of it"):
        equal(await owner.ask("POST", "/register_mcp_server", server), {"server_id": "brought"})
        async with session_of(first) as session:
            equal(await names(session), [f"mine_{tool}" for tool in TOOLS])
            equal(text(await session.call_tool("mine_add", {"a": 1, "b": 2})), "3")
    async with world.report.check("another one sees nothing of it before it is shared"), session_of(second) as session:
        equal(await names(session), [])
        await refused(session, "mine_add")
    async with world.report.check("and exactly what is shared, in a session that was open before"):
        async with session_of(second) as session:
            equal(await names(session), [])
            await owner.ask("POST", "/update_access_control", access(PATTERNS))
            equal(await names(session), SHARED)
            equal(text(await session.call_tool("mine_add", {"a": 3, "b": 4})), "7")
            for tool in {f"mine_{tool}" for tool in TOOLS} - {*SHARED}:
                await refused(session, tool)
    async with world.report.check("get_tools and explain say the same as the list"):
        seen = await guest.ask("GET", "/get_tools")
        equal([tool["name"] for tool in seen["tools"]], SHARED)
        for tool in TOOLS:
            explained = await guest.ask("GET", f"/explain?tool=mine_{tool}")
            equal(explained["verdict"], "yes" if f"mine_{tool}" in SHARED else "no")
    async with world.report.check("a refreshed token opens an SDK session"):
        fresh = await guest.ask("POST", "/refresh_token")
        async with connect(world.gateway, fresh["auth_token"]) as session:
            equal(await names(session), SHARED)
    async with world.report.check("what is revoked is gone from an open session at once"), session_of(second) as session:
        await owner.ask("POST", "/update_access_control", access([]))
        equal(await names(session), [])
        await refused(session, "mine_add")
    async with world.report.check("a client that unregistered is let in no more, and nothing of it is left in the file"):
        for registered, rest in ((first, owner), (second, guest)):
            await rest.ask("POST", "/unregister_client", {"client_id": registered["client_id"]})
            await rest.ask("GET", "/get_tools", status=401)
        equal(world.config.read_bytes(), written)
    for rest in (open_to_all, owner, guest):
        await rest.http.aclose()

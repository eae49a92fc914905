"""What the Python SDK 1.x can do beside tools: features_python1.py JOB

`features` says what JOB is; with `plain` the client declares nothing that it could be asked.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from features import Heard, Session, run, subscribed, texts
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    Root,
    ServerNotification,
    TextContent,
    ToolListChangedNotification,
)
from pydantic import AnyUrl, FileUrl


class Peer:
    def __init__(self, heard: Heard, client: ClientSession) -> None:
        self.heard = heard
        self.client = client

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return texts((await self.client.call_tool(name, arguments)).content)

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in (await self.client.list_prompts()).prompts]

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        return texts([message.content for message in (await self.client.get_prompt(name, arguments)).messages])

    async def resources(self) -> list[str]:
        return [str(resource.uri) for resource in (await self.client.list_resources()).resources]

    async def templates(self) -> list[str]:
        return [one.uriTemplate for one in (await self.client.list_resource_templates()).resourceTemplates]

    async def read(self, uri: str) -> str:
        return texts([*(await self.client.read_resource(AnyUrl(uri))).contents])

    async def complete_prompt(self, name: str, argument: dict[str, str]) -> list[str]:
        ref = PromptReference(type="ref/prompt", name=name)
        return (await self.client.complete(ref, argument)).completion.values

    async def complete_template(self, uri: str, argument: dict[str, str]) -> list[str]:
        ref = ResourceTemplateReference(type="ref/resource", uri=uri)
        return (await self.client.complete(ref, argument)).completion.values

    def watch(self, uri: str | None) -> Any:
        return subscribed(self.client, uri and AnyUrl(uri))


@asynccontextmanager
async def open_session(session: Session, plain: bool = False) -> AsyncIterator[tuple[Peer, str]]:
    heard = Heard()

    async def on_elicit(_: Any, params: ElicitRequestParams) -> ElicitResult:
        name = session.name(params.message)
        return ElicitResult(action="accept", content={"name": name}) if name else ElicitResult(action="decline")

    async def on_sample(_: Any, params: CreateMessageRequestParams) -> CreateMessageResult:
        said = session.said(texts(params.messages[0].content_as_list))
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text=said), model="interop")

    async def on_roots(_: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=FileUrl(session.root))])

    async def on_message(message: Any) -> None:
        match message:
            case ServerNotification(root=ResourceUpdatedNotification(params=params)):
                await heard.add(str(params.uri))
            case ServerNotification(root=ToolListChangedNotification()):
                await heard.add("tools")

    headers = {"Authorization": f"Bearer {session.token}"} if session.token else {}
    asked: dict[str, Any] = {
        "elicitation_callback": on_elicit,
        "sampling_callback": on_sample,
        "list_roots_callback": on_roots,
    }
    asked = {} if plain else asked
    async with (
        httpx.AsyncClient(headers=headers, timeout=30) as http,
        streamable_http_client(session.url, http_client=http) as (read, write, _),
        ClientSession(read, write, message_handler=on_message, **asked) as client,
    ):
        version = (await client.initialize()).protocolVersion
        yield Peer(heard, client), str(version)


run(open_session)

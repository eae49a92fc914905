"""What FastMCP's own client can do beside tools, of either line: features_fastmcp.py JOB

`features` says what JOB is; on the SDK 2.x it has a `mode` too: `auto`, `legacy` or a revision.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.messages import MessageHandler
from fastmcp.client.transports import StreamableHttpTransport
from features import Heard, Session, listening, run, subscribed, texts
from mcp.types import PromptReference, ResourceTemplateReference


class Listener(MessageHandler):
    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self.heard = heard

    async def on_resource_updated(self, message: Any) -> None:
        await self.heard.add(str(message.params.uri))

    async def on_tool_list_changed(self, message: Any) -> None:
        await self.heard.add("tools")


class Peer:
    def __init__(self, heard: Heard, client: Any) -> None:
        self.heard = heard
        self.client = client

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return texts((await self.client.call_tool(name, arguments, raise_on_error=False)).content)

    async def tools(self) -> list[str]:
        return [tool.name for tool in await self.client.list_tools()]

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in await self.client.list_prompts()]

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        return texts([message.content for message in (await self.client.get_prompt(name, arguments)).messages])

    async def resources(self) -> list[str]:
        return [str(resource.uri) for resource in await self.client.list_resources()]

    async def templates(self) -> list[str]:
        # In the names of the specification, which not every SDK uses.
        listed = await self.client.list_resource_templates()
        return [template.model_dump(by_alias=True)["uriTemplate"] for template in listed]

    async def read(self, uri: str) -> str:
        return texts([*await self.client.read_resource(uri)])

    async def complete_prompt(self, name: str, argument: dict[str, str]) -> list[str]:
        ref = PromptReference(type="ref/prompt", name=name)
        return [*(await self.client.complete(ref, argument)).values]

    async def complete_template(self, uri: str, argument: dict[str, str]) -> list[str]:
        ref = ResourceTemplateReference(type="ref/resource", uri=uri)
        return [*(await self.client.complete(ref, argument)).values]

    def watch(self, uri: str | None) -> Any:
        # It has no words of its own for either way.
        if getattr(self.client, "protocol_version", "") >= "2026-07-28":
            from mcp.client.subscriptions import listen

            return listening(partial(listen, self.client.session), self.heard, uri)
        return subscribed(self.client.session, uri)


@asynccontextmanager
async def open_session(session: Session, **mode: str) -> AsyncIterator[tuple[Peer, str]]:
    heard = Heard()

    async def on_elicit(message: str, kind: Any, params: Any, _: Any) -> Any:
        name = session.name(message)
        return {"name": name} if name else ElicitResult(action="decline")

    async def on_sample(messages: list[Any], params: Any, _: Any) -> str:
        return session.said(messages[0].content.text)

    headers = {"Authorization": f"Bearer {session.token}"} if session.token else {}
    asked: dict[str, Any] = {"elicitation_handler": on_elicit, "sampling_handler": on_sample, "roots": [session.root]}
    transport = StreamableHttpTransport(session.url, headers=headers)
    async with Client(transport, message_handler=Listener(heard), **asked, **mode) as client:
        version = getattr(client, "protocol_version", None) or client.initialize_result.protocolVersion
        yield Peer(heard, client), str(version)


run(open_session)

"""One MCP server with everything but tools alone: feature_servers.py PACKAGE PORT.

PACKAGE is one of servers.py's: `sdk`, `fastmcp`, `sdk2`, `fastmcp4`. Each runs in sessions, answers with event streams, and
offers what `features.py` says, in the way its package's documentation has it.
"""

import sys
from typing import Annotated, Any
from weakref import WeakSet

from pydantic import BaseModel

PEOPLE = ["Ada", "Alan", "Grace"]
TOPICS = ["tea", "toast", "milk"]
WHO = "Who are you?"


class Name(BaseModel):
    name: str


class Counter:
    """The resource that changes, and the legacy sessions that want to know."""

    def __init__(self, package: str) -> None:
        self.uri = f"note://{package}/counter"
        self.count = 0
        self.sessions: WeakSet[Any] | set[Any] = WeakSet()

    async def bump(self) -> str:
        self.count += 1
        for session in [*self.sessions]:
            await session.send_resource_updated(self.uri)
        return str(self.count)


def outcome(result: Any, name: str | None) -> str:
    """What `ask` says of an elicitation."""
    return f"{result.action} {name}" if name else str(result.action)


def joined(roots: list[Any]) -> str:
    return " ".join(str(root.uri) for root in roots)


def candidates(argument: Any) -> list[str]:
    known = {"to": PEOPLE, "topic": TOPICS}.get(argument.name, [])
    return [value for value in known if value.startswith(argument.value)]


def add_texts(server: Any, package: str, counter: Counter) -> None:
    """Gives `server` the prompt and the resources."""

    @server.prompt()
    def letter(to: str) -> str:
        """Asks for a letter."""
        return f"Write to {to}."

    @server.resource(f"note://{package}/fixed", mime_type="text/plain")
    def fixed() -> str:
        """Never changes."""
        return f"fixed by {package}"

    @server.resource(counter.uri, mime_type="text/plain")
    def count() -> str:
        """Changes whenever `bump` is called."""
        return str(counter.count)

    @server.resource(f"note://{package}/about/{{topic}}", mime_type="text/plain")
    def about(topic: str) -> str:
        """Tells about a topic."""
        return f"about {topic}"


# How a tool asks the legacy way: with requests of its own, while its call runs.
async def elicited(ctx: Any, question: str) -> str:
    result = await ctx.elicit(question, Name)
    return outcome(result, result.data.name if result.action == "accept" else None)


async def sampled(ctx: Any, question: str) -> str:
    from mcp.types import SamplingMessage, TextContent

    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    result = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
    return str(result.content.text)


async def rooted(ctx: Any) -> str:
    return joined((await ctx.session.list_roots()).roots)


async def chatted(ctx: Any) -> str:
    return await sampled(ctx, f"Greet {(await elicited(ctx, WHO)).removeprefix('accept ')}.")


def add_asking_tools(server: Any, context: Any) -> None:
    """The tools that ask, of packages that speak the legacy era alone."""

    @server.tool()
    async def ask(question: str, ctx: context) -> str:
        """Asks the user."""
        return await elicited(ctx, question)

    @server.tool()
    async def sample(question: str, ctx: context) -> str:
        """Asks the model."""
        return await sampled(ctx, question)

    @server.tool()
    async def roots(ctx: context) -> str:
        """Asks for the roots."""
        return await rooted(ctx)

    @server.tool()
    async def chat(ctx: context) -> str:
        """Asks the user, and then the model, which needs the first answer."""
        return await chatted(ctx)


# Each package is imported only where it is served, as in servers.py.
def sdk(package: str, port: int) -> None:
    import mcp.server.fastmcp as sdk
    from mcp.types import Completion

    server = sdk.FastMCP("features", port=port, log_level="WARNING")
    counter = Counter(package)
    add_texts(server, package, counter)
    add_asking_tools(server, sdk.Context)
    low = server._mcp_server

    @low.subscribe_resource()
    async def subscribe(uri: Any) -> None:
        counter.sessions.add(low.request_context.session)

    @low.unsubscribe_resource()
    async def unsubscribe(uri: Any) -> None:
        counter.sessions.discard(low.request_context.session)

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=candidates(argument))

    @server.tool()
    async def bump() -> str:
        """Changes the counter."""
        return await counter.bump()

    @server.tool()
    async def grow(name: str, ctx: sdk.Context) -> str:
        """Adds a tool."""
        server.add_tool(lambda: "grown", name=name, description="Was added.")
        await ctx.session.send_tool_list_changed()
        return "grown"

    server.run("streamable-http")


def fastmcp(package: str, port: int) -> None:
    import fastmcp
    from mcp.types import ToolListChangedNotification

    server = fastmcp.FastMCP("features")
    counter = Counter(package)
    add_texts(server, package, counter)
    add_asking_tools(server, fastmcp.Context)

    @server.tool()
    async def bump() -> str:
        """Changes the counter."""
        return await counter.bump()

    @server.tool()
    async def grow(name: str, ctx: fastmcp.Context) -> str:
        """Adds a tool."""
        server.tool(lambda: "grown", name=name, description="Was added.")
        await ctx.send_notification(ToolListChangedNotification())
        return "grown"

    server.run("http", port=port, path="/mcp", show_banner=False, log_level="WARNING")


def fastmcp4(package: str, port: int) -> None:
    import fastmcp
    from mcp_types import (
        CreateMessageRequest,
        CreateMessageRequestParams,
        ElicitRequest,
        ElicitRequestFormParams,
        InputRequiredResult,
        ListRootsRequest,
        SamplingMessage,
        TextContent,
        ToolListChangedNotification,
    )
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

    server = fastmcp.FastMCP("features")
    counter = Counter(package)
    add_texts(server, package, counter)
    Asked = str | InputRequiredResult

    def form(question: str) -> ElicitRequest:
        schema = Name.model_json_schema()
        return ElicitRequest(params=ElicitRequestFormParams(message=question, requested_schema=schema))

    def words(question: str) -> CreateMessageRequest:
        message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
        return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=10))

    def required(state: str | None = None, **requests: Any) -> InputRequiredResult:
        return InputRequiredResult(input_requests=requests, request_state=state)

    def legacy(ctx: Any) -> bool:
        return ctx.request_context.protocol_version not in MODERN_PROTOCOL_VERSIONS

    def named(answer: Any) -> str | None:
        return answer.content["name"] if answer.action == "accept" else None

    @server.tool()
    async def ask(question: str, ctx: fastmcp.Context) -> Asked:
        """Asks the user."""
        if legacy(ctx):
            return await elicited(ctx, question)
        if not ctx.input_responses:
            return required(who=form(question))
        return outcome(answer := ctx.input_responses["who"], named(answer))

    @server.tool()
    async def sample(question: str, ctx: fastmcp.Context) -> Asked:
        """Asks the model."""
        if legacy(ctx):
            return await sampled(ctx, question)
        if not ctx.input_responses:
            return required(said=words(question))
        return str(ctx.input_responses["said"].content.text)

    @server.tool()
    async def roots(ctx: fastmcp.Context) -> Asked:
        """Asks for the roots."""
        if legacy(ctx):
            return await rooted(ctx)
        if not ctx.input_responses:
            return required(roots=ListRootsRequest())
        return joined(ctx.input_responses["roots"].roots)

    @server.tool()
    async def chat(ctx: fastmcp.Context) -> Asked:
        """Asks the user, and then the model, which needs the first answer."""
        if legacy(ctx):
            return await chatted(ctx)
        answers = ctx.input_responses or {}
        if said := answers.get("said"):
            return str(said.content.text) if ctx.request_state == "asked" else f"state {ctx.request_state!r}"
        if who := answers.get("who"):
            return required("asked", said=words(f"Greet {named(who)}."))
        return required(who=form(WHO))

    @server.completion
    async def complete(ref: Any, argument: Any, context: Any) -> list[str]:
        return candidates(argument)

    @server.tool()
    async def bump() -> str:
        """Changes the counter."""
        return await counter.bump()

    @server.tool()
    async def grow(name: str, ctx: fastmcp.Context) -> str:
        """Adds a tool."""
        server.tool(lambda: "grown", name=name, description="Was added.")
        await ctx.send_notification(ToolListChangedNotification())
        return "grown"

    server.run("http", port=port, path="/mcp", show_banner=False, log_level="WARNING")


def sdk2(package: str, port: int) -> None:
    import mcp.server.mcpserver as sdk
    from mcp.server.elicitation import ElicitationResult
    from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
    from mcp_types import (
        Completion,
        CreateMessageResult,
        EmptyResult,
        ListRootsResult,
        SamplingMessage,
        SubscribeRequestParams,
        TextContent,
        UnsubscribeRequestParams,
    )

    server = sdk.MCPServer("features", log_level="CRITICAL")
    counter = Counter(package)
    # One is made for every request.
    counter.sessions = set()
    add_texts(server, package, counter)

    def prompt(question: str) -> Sample:
        return Sample([SamplingMessage(role="user", content=TextContent(type="text", text=question))], max_tokens=10)

    async def who(question: str) -> Elicit[Name]:
        return Elicit(question, Name)

    async def said(question: str) -> Sample:
        return prompt(question)

    async def listed() -> ListRoots:
        return ListRoots()

    async def guest() -> Elicit[Name]:
        return Elicit(WHO, Name)

    async def greeting(who: Annotated[Name, Resolve(guest)]) -> Sample:
        return prompt(f"Greet {who.name}.")

    @server.tool()
    async def ask(question: str, who: Annotated[ElicitationResult[Name], Resolve(who)]) -> str:
        """Asks the user."""
        return outcome(who, who.data.name if who.action == "accept" else None)

    @server.tool()
    async def sample(question: str, said: Annotated[CreateMessageResult, Resolve(said)]) -> str:
        """Asks the model."""
        return str(getattr(said.content, "text", said))

    @server.tool()
    async def roots(listed: Annotated[ListRootsResult, Resolve(listed)]) -> str:
        """Asks for the roots."""
        return joined(listed.roots)

    @server.tool()
    async def chat(said: Annotated[CreateMessageResult, Resolve(greeting)]) -> str:
        """Asks the user, and then the model, which needs the first answer."""
        return str(getattr(said.content, "text", said))

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=candidates(argument))

    async def subscribe(ctx: Any, params: SubscribeRequestParams) -> EmptyResult:
        counter.sessions.add(ctx.session)
        return EmptyResult()

    async def unsubscribe(ctx: Any, params: UnsubscribeRequestParams) -> EmptyResult:
        counter.sessions.discard(ctx.session)
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)

    @server.tool()
    async def bump(ctx: sdk.Context) -> str:
        """Changes the counter."""
        count = await counter.bump()
        await ctx.notify_resource_updated(counter.uri)
        return count

    @server.tool()
    async def grow(name: str, ctx: sdk.Context) -> str:
        """Adds a tool."""
        server.add_tool(lambda: "grown", name=name, description="Was added.")
        await ctx.notify_tools_changed()
        await ctx.session.send_tool_list_changed()
        return "grown"

    server.run("streamable-http", port=port)


if __name__ == "__main__":
    {"sdk": sdk, "fastmcp": fastmcp, "fastmcp4": fastmcp4, "sdk2": sdk2}[sys.argv[1]](sys.argv[1], int(sys.argv[2]))

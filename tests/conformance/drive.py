"""What the suite runs as the client it tests: a gateway in front of the suite's server, and a client of the gateway.

    DRIVE_GATEWAY=MCP-X DRIVE_FOLDER=FOLDER DRIVE_CLIENT=legacy|modern drive.py URL

Does through the gateway what the scenario in MCP_CONFORMANCE_SCENARIO asks of a client. The suite judges what reaches
its server; that the answers come back is checked here.
"""

import json
import os
import signal
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any

from support import TOKEN, gateway

Object = dict[str, Any]

LEGACY, MODERN = "2025-11-25", "2026-07-28"
KEY = "io.modelcontextprotocol/"
IDENTITY = {"name": "drive", "version": "1"}
# What the client can be asked for.
CAPABILITIES: Object = {"elicitation": {}}
# Seconds for a scenario, more than any takes; the suite would wait longer.
PATIENCE = 15
# Where the `Mcp-Name` of a request comes from.
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


class Refused(Exception):
    """An error in the place of a result."""


class Client:
    """A client of the gateway, of either era."""

    def __init__(self, port: int, modern: bool) -> None:
        self.port, self.modern = port, modern
        self.ids = count(1)
        self.session: dict[str, str] = {}
        # What its tools want mirrored: the names of the headers, by tool and argument.
        self.mirrored: dict[str, dict[str, str]] = {}
        self.greet()

    def greet(self) -> None:
        """Begins: a legacy client with the handshake, a modern one with a look at what there is."""
        if self.modern:
            assert MODERN in self.ask("server/discover")["supportedVersions"]
            return
        hello = {"protocolVersion": LEGACY, "capabilities": CAPABILITIES, "clientInfo": IDENTITY}
        result = self.ask("initialize", hello)
        assert result["protocolVersion"] == LEGACY, result
        self.session["MCP-Protocol-Version"] = LEGACY
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"}).read()

    def tools(self) -> dict[str, Object]:
        """What the gateway lists, by name."""
        tools = {tool["name"]: tool for tool in self.ask("tools/list")["tools"]}
        for name, tool in tools.items():
            properties = tool["inputSchema"].get("properties", {})
            headers = {key: schema["x-mcp-header"] for key, schema in properties.items() if "x-mcp-header" in schema}
            self.mirrored[name] = headers
        return tools

    def call(self, tool: str, arguments: Object | None = None, **members: Any) -> str:
        """Calls a tool, and answers what it asks; its text."""
        result = self.attempt(tool, arguments, **members)
        while result.get("resultType") == "input_required":
            result = self.attempt(tool, arguments, **answers(result))
        text: str = result["content"][0]["text"]
        return text

    def attempt(self, tool: str, arguments: Object | None = None, **members: Any) -> Object:
        """Calls a tool once; the result may be a question."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments or {}, **members})

    def ask(self, method: str, params: Object | None = None) -> Object:
        """Makes a request; its result."""
        params, headers = {**(params or {})}, {}
        if self.modern:
            meta = {"protocolVersion": MODERN, "clientCapabilities": CAPABILITIES, "clientInfo": IDENTITY}
            params["_meta"] = {KEY + key: value for key, value in meta.items()}
            headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            if method in NAMED_BY:
                headers["Mcp-Name"] = header_value(params[NAMED_BY[method]])
            for argument, name in self.mirrored.get(params.get("name", ""), {}).items():
                if params["arguments"].get(argument) is not None:
                    headers[f"Mcp-Param-{name}"] = header_value(params["arguments"][argument])
        request = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        answer = self.send(request, headers)
        if session := answer.headers["Mcp-Session-Id"]:
            self.session["Mcp-Session-Id"] = session
        for message in messages(answer):
            if message.get("id") == request["id"] and "method" not in message:
                if "error" in message:
                    raise Refused(message["error"])
                result: Object = message["result"]
                return result
            if "id" in message:
                reply = {"jsonrpc": "2.0", "id": message["id"], "result": reply_to(message)}
                self.send(reply).read()
        raise AssertionError(f"no response to {method}")

    def send(self, message: Object, headers: dict[str, str] | None = None) -> HTTPResponse:
        """POSTs a message."""
        connection = HTTPConnection("127.0.0.1", self.port)
        common = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        connection.request("POST", "/mcp", json.dumps(message), {**common, **self.session, **(headers or {})})
        return connection.getresponse()


def messages(answer: HTTPResponse) -> Iterator[Object]:
    """The messages of an answer as they come."""
    if answer.headers.get_content_type() != "text/event-stream":
        yield json.loads(answer.read())
        return
    for line in answer:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def header_value(value: str | int | bool) -> str:
    """A value as a header mirrors it."""
    text = value if isinstance(value, str) else json.dumps(value)
    if text.isascii() and text.isprintable() and text == text.strip():
        return text
    return f"=?base64?{b64encode(text.encode()).decode()}?="


def answers(result: Object) -> Object:
    """What a call comes with once more that has been answered with questions."""
    replies = {"inputResponses": {key: reply_to(question) for key, question in result["inputRequests"].items()}}
    return replies | {key: result[key] for key in ("requestState",) if key in result}


def reply_to(question: Object) -> Object:
    """Accepts a form with the defaults of its fields."""
    assert question["method"] == "elicitation/create", question
    fields = question["params"]["requestedSchema"]["properties"]
    return {"action": "accept", "content": {name: field.get("default", True) for name, field in fields.items()}}


def equal(found: object, expected: object) -> None:
    assert found == expected, f"expected {expected}, found {found}"


def nothing_offered(client: Client) -> None:
    equal(client.tools(), {})


def add_numbers(client: Client) -> None:
    equal([*client.tools()], ["add_numbers"])
    equal(client.call("add_numbers", {"a": 5, "b": 3}), "The sum of 5 and 3 is 8")


def defaults(client: Client) -> None:
    equal([*client.tools()], ["test_client_elicitation_defaults"])
    text = client.call("test_client_elicitation_defaults")
    assert text.startswith("Elicitation completed"), text


def reconnection(client: Client) -> None:
    equal([*client.tools()], ["test_reconnection"])
    equal(client.call("test_reconnection"), "Reconnection test completed successfully")


def request_state(client: Client) -> None:
    names = [f"test_mrtr_{name}" for name in ("echo_state", "no_state", "unrelated", "no_result_type")]
    equal([*client.tools()], names)
    stateful, stateless, unrelated, untyped = names
    if client.modern:
        # Between question and answer another call is made, which must have nothing of either.
        asked = client.attempt(stateful)
        equal(client.call(unrelated), "unrelated-ok")
        equal(client.call(stateful, **answers(asked)), "echo-state-ok")
    else:
        equal(client.call(stateful), "echo-state-ok")
        equal(client.call(unrelated), "unrelated-ok")
    equal(client.call(stateless), "no-state-ok")
    equal(client.call(untyped), "no-result-type-test-ok")


def everything_once(client: Client) -> None:
    tools = client.tools()
    equal([*tools], ["test_headers", "my-hyphenated-tool"])
    for tool in tools:
        equal(client.call(tool), "Headers test completed")
    uris = [resource["uri"] for resource in client.ask("resources/list")["resources"]]
    equal(uris, ["file:///path/to/file%20name.txt", "https://example.com/resource?id=123"])
    for uri in uris:
        equal(client.ask("resources/read", {"uri": uri})["contents"], [])
    equal([prompt["name"] for prompt in client.ask("prompts/list")["prompts"]], ["test_prompt"])
    equal(client.ask("prompts/get", {"name": "test_prompt"})["messages"], [])


def custom_headers(client: Client) -> None:
    equal([*client.tools()], ["test_custom_headers", "test_custom_headers_null"])
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        equal(client.call(call["name"], call["arguments"]), "Custom headers test completed")


def only_the_valid_tool(client: Client) -> None:
    equal([*client.tools()], ["valid_tool"])
    client.call("valid_tool", {"region": "us-west1"})
    kinds = ["empty_header", "object_header", "array_header", "null_header", "duplicate_same_case"]
    kinds += ["duplicate_diff_case", "space_in_name", "colon_in_name", "non_ascii_name", "control_char_name"]
    for tool in [f"invalid_{kind}" for kind in kinds]:
        try:
            client.call(tool, {})
        except Refused as refused:
            equal(refused.args[0]["message"], f"unknown tool: `{tool}`")
        else:
            raise AssertionError(f"{tool} was called")


def reference(client: Client) -> None:
    schema = client.tools()["lookup_user"]["inputSchema"]
    equal(schema["properties"]["id"], {"$ref": "#/$defs/userId"})
    assert schema["properties"]["profile"]["$ref"].startswith("http"), schema


def preservation(client: Client) -> None:
    schema = client.tools()["json_schema_2020_12_tool"]["inputSchema"]
    equal(client.call("json_schema_echo", {"schema": schema}), "echoed")


# What is done in each scenario.
SCENARIOS: dict[str, Callable[[Client], None]] = {
    "initialize": nothing_offered,
    "tools_call": add_numbers,
    "elicitation-sep1034-client-defaults": defaults,
    "sse-retry": reconnection,
    "request-metadata": nothing_offered,
    "sep-2322-client-request-state": request_state,
    "http-standard-headers": everything_once,
    "http-custom-headers": custom_headers,
    "http-invalid-tool-headers": only_the_valid_tool,
    "json-schema-ref-no-deref": reference,
    "json-schema-2020-12-preservation": preservation,
}


def too_long(*_: object) -> None:
    raise TimeoutError(f"not done after {PATIENCE} s")


def main(url: str) -> None:
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    binary, folder = (Path(os.environ[name]) for name in ("DRIVE_GATEWAY", "DRIVE_FOLDER"))
    with gateway(binary, url, folder) as port:
        client = Client(port, modern=os.environ["DRIVE_CLIENT"] == "modern")
        SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]](client)


if __name__ == "__main__":
    main(sys.argv[1])

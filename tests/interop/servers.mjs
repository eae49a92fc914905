// One MCP server on a TypeScript SDK, for the gateway to stand in front of: servers.mjs MODULES KIND PORT
//
// MODULES is the folder that holds node_modules. KIND is
//   typescript-sessions  the SDK 1.x, legacy era with sessions
//   typescript2-modern   the SDK 2.x, modern era alone
//   typescript2-dual     the SDK 2.x as it is by default: both eras, the legacy one without sessions

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [modules, kind, port] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { z } = require("zod");

const STEPS = 3;
const STEP_MS = 100;
const pause = () => new Promise((resolve) => setTimeout(resolve, STEP_MS));
const text = (words) => ({ content: [{ type: "text", text: words }] });

// The tools of servers.py, but for `whoami`. `hear` gives what a tool can say to its caller.
function withTools(server, hear) {
  const add = {
    description: "Adds two numbers.",
    inputSchema: z.object({ a: z.number(), b: z.number() }),
    outputSchema: z.object({ result: z.number() }),
  };
  server.registerTool("add", add, async ({ a, b }) => ({ ...text(`${a + b}`), structuredContent: { result: a + b } }));
  const greet = { description: "Greets somebody.", inputSchema: z.object({ name: z.string() }) };
  server.registerTool("greet", greet, async ({ name }) => text(`Hello, ${name}!`));
  const fail = { description: "Fails.", inputSchema: z.object({ reason: z.string() }) };
  server.registerTool("fail", fail, async ({ reason }) => {
    throw new Error(reason);
  });
  const slow = { description: "Takes its time, and reports each step.", inputSchema: z.object({}) };
  server.registerTool("slow", slow, async (_, context) => {
    const { token, notify } = hear(context);
    for (let step = 1; step <= STEPS; step++) {
      await pause();
      const params = { progressToken: token, progress: step, total: STEPS };
      if (token !== undefined) await notify({ method: "notifications/progress", params });
    }
    await pause();
    return text("done");
  });
  const secret = { description: "Must never be reached by anybody but its owner.", inputSchema: z.object({}) };
  server.registerTool("secret_delete", secret, async () => text("deleted"));
  return server;
}

function one() {
  const { McpServer } = require("@modelcontextprotocol/sdk/server/mcp.js");
  const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
  const hear = ({ _meta, sendNotification }) => ({ token: _meta?.progressToken, notify: sendNotification });
  const sessions = new Map();
  return async (request, response) => {
    let transport = sessions.get(request.headers["mcp-session-id"]);
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => sessions.set(id, transport),
        onsessionclosed: (id) => sessions.delete(id),
      });
      await withTools(new McpServer({ name: "interop", version: "1.0.0" }), hear).connect(transport);
    }
    await transport.handleRequest(request, response);
  };
}

function two(legacy) {
  const { McpServer, createMcpHandler } = require("@modelcontextprotocol/server");
  const { toNodeHandler } = require("@modelcontextprotocol/node");
  const hear = ({ mcpReq }) => ({ token: mcpReq._meta?.progressToken, notify: mcpReq.notify });
  const make = () => withTools(new McpServer({ name: "interop", version: "1.0.0" }), hear);
  return toNodeHandler(createMcpHandler(make, { legacy }));
}

const kinds = {
  "typescript-sessions": one,
  "typescript2-modern": () => two("reject"),
  "typescript2-dual": () => two("stateless"),
};
createServer(kinds[kind]()).listen(Number(port), "127.0.0.1");

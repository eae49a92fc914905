// One MCP server on a TypeScript SDK with everything but tools alone: feature_servers.mjs MODULES PACKAGE PORT
//
// MODULES is the folder that holds node_modules. PACKAGE is
//   typescript   the SDK 1.x, legacy era with sessions
//   typescript2  the SDK 2.x, both eras, the legacy one with sessions, as its documentation composes them
// Each offers what `features.py` says.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [modules, kind, port] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { z } = require("zod");

const PEOPLE = ["Ada", "Alan", "Grace"];
const TOPICS = ["tea", "toast", "milk"];
const WHO = "Who are you?";
const COUNTER = `note://${kind}/counter`;
const NAME = { type: "object", properties: { name: { type: "string" } }, required: ["name"] };
const text = (words) => ({ content: [{ type: "text", text: words }] });
const outcome = ({ action, content }) => text(action === "accept" ? `accept ${content.name}` : action);
const uris = (roots) => text(roots.map(({ uri }) => uri).join(" "));
const message = (question) => ({
  messages: [{ role: "user", content: { type: "text", text: question } }],
  maxTokens: 10,
});
const starting = (values) => (value) => values.filter((candidate) => candidate.startsWith(value));

// What changes: the counter and the tools that were added; and who has to be told.
let count = 0;
const grown = [];
// The servers of legacy sessions, and those of them whose client subscribed to the counter.
const sessions = new Set();
const subscribers = new Set();
// Tells the modern clients.
const modern = { updated: () => {}, changed: () => {} };

function addTexts(server, { completable, ResourceTemplate }) {
  const argsSchema = { to: completable(z.string(), starting(PEOPLE)) };
  server.registerPrompt("letter", { description: "Asks for a letter.", argsSchema }, ({ to }) => ({
    messages: [{ role: "user", content: { type: "text", text: `Write to ${to}.` } }],
  }));
  const read = (words) => (uri, variables) => ({ contents: [{ uri: uri.href, text: words(variables) }] });
  const config = { mimeType: "text/plain" };
  server.registerResource("fixed", `note://${kind}/fixed`, config, read(() => `fixed by ${kind}`));
  server.registerResource("counter", COUNTER, config, read(() => `${count}`));
  const about = new ResourceTemplate(`note://${kind}/about/{topic}`, {
    list: undefined,
    complete: { topic: starting(TOPICS) },
  });
  server.registerResource("about", about, config, read(({ topic }) => `about ${topic}`));
}

const addGrown = (mcp, name) => mcp.registerTool(name, { description: "Was added." }, async () => text("grown"));

function addChanges(mcp) {
  grown.forEach((name) => addGrown(mcp, name));
  mcp.registerTool("bump", { description: "Changes the counter." }, async () => {
    count += 1;
    modern.updated();
    for (const { server } of subscribers) await server.sendResourceUpdated({ uri: COUNTER });
    return text(`${count}`);
  });
  const grow = { description: "Adds a tool.", inputSchema: z.object({ name: z.string() }) };
  mcp.registerTool("grow", grow, async ({ name }) => {
    grown.push(name);
    // The server of a session tells its client by itself.
    sessions.forEach((mcp) => addGrown(mcp, name));
    modern.changed();
    return text("grown");
  });
}

const question = z.object({ question: z.string() });

// Serves the legacy era in sessions, each with a server of its own; `methods` are the names or schemas of the requests
// that begin and end a subscription.
function inSessions(Transport, make, methods) {
  const transports = new Map();
  return async (request, response, body) => {
    let transport = transports.get(request.headers["mcp-session-id"]);
    if (!transport) {
      const mcp = make();
      transport = new Transport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => transports.set(id, transport),
        onsessionclosed: (id) => {
          transports.delete(id);
          sessions.delete(mcp);
          subscribers.delete(mcp);
        },
      });
      sessions.add(mcp);
      const [subscribe, unsubscribe] = methods;
      mcp.server.setRequestHandler(subscribe, async () => subscribers.add(mcp) && {});
      mcp.server.setRequestHandler(unsubscribe, async () => subscribers.delete(mcp) && {});
      await mcp.connect(transport);
    }
    await transport.handleRequest(request, response, body);
  };
}

function one() {
  const { McpServer, ResourceTemplate } = require("@modelcontextprotocol/sdk/server/mcp.js");
  const { completable } = require("@modelcontextprotocol/sdk/server/completable.js");
  const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
  const types = require("@modelcontextprotocol/sdk/types.js");
  const capabilities = { resources: { subscribe: true } };
  const make = () => {
    const mcp = new McpServer({ name: "features", version: "1.0.0" }, { capabilities });
    const { server } = mcp;
    addTexts(mcp, { completable, ResourceTemplate });
    // Requests belong to the call that they are asked for.
    const related = ({ requestId }) => ({ relatedRequestId: requestId });
    const elicit = (words, context) =>
      server.elicitInput({ mode: "form", message: words, requestedSchema: NAME }, related(context));
    const sample = async (words, context) => (await server.createMessage(message(words), related(context))).content;
    mcp.registerTool("ask", { inputSchema: question }, async ({ question }, context) =>
      outcome(await elicit(question, context)),
    );
    mcp.registerTool("sample", { inputSchema: question }, async ({ question }, context) => ({
      content: [await sample(question, context)],
    }));
    mcp.registerTool("roots", {}, async (context) => uris((await server.listRoots({}, related(context))).roots));
    mcp.registerTool("chat", {}, async (context) => {
      const { content } = await elicit(WHO, context);
      return { content: [await sample(`Greet ${content.name}.`, context)] };
    });
    addChanges(mcp);
    return mcp;
  };
  return inSessions(StreamableHTTPServerTransport, make, [types.SubscribeRequestSchema, types.UnsubscribeRequestSchema]);
}

function two() {
  const sdk = require("@modelcontextprotocol/server");
  const { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } = require("@modelcontextprotocol/node");
  const { inputRequired, inputResponse } = sdk;
  const capabilities = { resources: { subscribe: true } };
  const make = () => {
    const mcp = new sdk.McpServer({ name: "features", version: "1.0.0" }, { capabilities });
    addTexts(mcp, sdk);
    // Written once for both eras: toward a legacy client the SDK asks the questions itself.
    const elicit = (words) => inputRequired.elicit({ message: words, requestedSchema: NAME });
    const need = (inputRequests, requestState) => inputRequired({ inputRequests, requestState });
    const answer = ({ mcpReq }, key) => inputResponse(mcpReq.inputResponses, key);
    mcp.registerTool("ask", { inputSchema: question }, async ({ question }, context) => {
      const who = answer(context, "who");
      return who.kind === "missing" ? need({ who: elicit(question) }) : outcome(who);
    });
    mcp.registerTool("sample", { inputSchema: question }, async ({ question }, context) => {
      const said = answer(context, "said");
      if (said.kind === "missing") return need({ said: inputRequired.createMessage(message(question)) });
      return { content: [said.result.content].flat() };
    });
    mcp.registerTool("roots", {}, async (context) => {
      const listed = answer(context, "listed");
      return listed.kind === "missing" ? need({ listed: inputRequired.listRoots() }) : uris(listed.roots);
    });
    mcp.registerTool("chat", {}, async (context) => {
      const [who, said] = [answer(context, "who"), answer(context, "said")];
      if (said.kind !== "missing") {
        const state = context.mcpReq.requestState();
        return state === "asked" ? { content: [said.result.content].flat() } : text(`state ${state}`);
      }
      if (who.kind === "missing") return need({ who: elicit(WHO) });
      return need({ said: inputRequired.createMessage(message(`Greet ${who.content.name}.`)) }, "asked");
    });
    addChanges(mcp);
    return mcp;
  };
  const handler = sdk.createMcpHandler(make, { legacy: "reject" });
  modern.updated = () => handler.notify.resourceUpdated(COUNTER);
  modern.changed = () => handler.notify.toolsChanged();
  const serveModern = toNodeHandler(handler);
  const methods = ["resources/subscribe", "resources/unsubscribe"];
  const serveLegacy = inSessions(NodeStreamableHTTPServerTransport, make, methods);
  return async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = parts.length ? JSON.parse(Buffer.concat(parts).toString()) : undefined;
    const legacy = await sdk.isLegacyRequest(await toWebRequest(request, body), body);
    await (legacy ? serveLegacy : serveModern)(request, response, body);
  };
}

createServer({ typescript: one, typescript2: two }[kind]()).listen(Number(port), "127.0.0.1");

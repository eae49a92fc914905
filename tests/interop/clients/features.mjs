// What the TypeScript SDKs can do beside tools: features.mjs JOB
//
// `features.py` says what JOB is; it has `modules` too (the folder that holds node_modules), and `mode` for the SDK 2.x: `auto`,
// `legacy` or a revision. Without it the client is the SDK 1.x. The checks are those of `features.py`.

import { createRequire } from "node:module";

const job = JSON.parse(process.argv[2]);
const require = createRequire(`${job.modules}/`);
const SECONDS = 6;
const MODERN = "2026-07-28";
const capabilities = { elicitation: { form: {} }, sampling: {}, roots: {} };
const info = { name: "interop", version: "1.0.0" };

// What a session needs of each SDK: its classes, the names of what a client is asked and told, and its version.
function one() {
  const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const types = require("@modelcontextprotocol/sdk/types.js");
  return {
    StreamableHTTPClientTransport,
    client: () => new Client(info, { capabilities }),
    elicit: types.ElicitRequestSchema,
    sample: types.CreateMessageRequestSchema,
    roots: types.ListRootsRequestSchema,
    updated: types.ResourceUpdatedNotificationSchema,
    changed: types.ToolListChangedNotificationSchema,
    version: (_, transport) => transport.protocolVersion,
  };
}

function two() {
  const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
  const mode = ["auto", "legacy"].includes(job.mode) ? job.mode : { pin: job.mode };
  return {
    StreamableHTTPClientTransport,
    client: () => new Client(info, { capabilities, versionNegotiation: { mode } }),
    elicit: "elicitation/create",
    sample: "sampling/createMessage",
    roots: "roots/list",
    updated: "notifications/resources/updated",
    changed: "notifications/tools/list_changed",
    version: (client) => client.getNegotiatedProtocolVersion(),
  };
}

const sdk = job.mode ? two() : one();

// What the server said unasked: URIs of resources that changed, and "tools".
class Heard {
  #things = new Set();
  #waiting = new Map();

  add(thing) {
    this.#things.add(thing);
    this.#waiting.get(thing)?.();
  }

  async wait(thing) {
    if (!this.#things.has(thing)) await new Promise((resolve) => this.#waiting.set(thing, resolve));
  }
}

const texts = (blocks) => [blocks].flat().map((block) => block.text ?? `[${block.type}]`).join("");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function answers(client, heard, mark) {
  client.setRequestHandler(sdk.elicit, async ({ params }) =>
    params.message.includes("decline") ? { action: "decline" } : { action: "accept", content: { name: mark } },
  );
  client.setRequestHandler(sdk.sample, async ({ params }) => {
    const said = `${mark} hears: ${texts(params.messages[0].content)}`;
    return { role: "assistant", content: { type: "text", text: said }, model: "interop" };
  });
  client.setRequestHandler(sdk.roots, async () => ({ roots: [{ uri: `file:///${mark}` }] }));
  client.setNotificationHandler(sdk.updated, ({ params }) => heard.add(params.uri));
  client.setNotificationHandler(sdk.changed, () => heard.add("tools"));
}

// The checks of one session; `watch` begins to listen for a URI, or else for tools, and gives how to end that.
function checks(client, heard, { prefix, package: kind, mark }, watch) {
  const uri = (path) => `note://${kind}/${path}`;
  const call = async (name, args = {}) =>
    texts((await client.callTool({ name: `${prefix}${name}`, arguments: args })).content);
  const read = async (uri) => texts((await client.readResource({ uri })).contents);
  const complete = async (ref, name, value) => (await client.complete({ ref, argument: { name, value } })).completion.values;
  return {
    elicit: () => call("ask", { question: "Who are you?" }),
    decline: () => call("ask", { question: "Will you decline?" }),
    sample: () => call("sample", { question: "Why?" }),
    roots: () => call("roots"),
    chat: () => call("chat"),
    prompt: async () => {
      const listed = (await client.listPrompts()).prompts.some(({ name }) => name === `${prefix}letter`);
      const { messages } = await client.getPrompt({ name: `${prefix}letter`, arguments: { to: mark } });
      return [listed, texts(messages.map(({ content }) => content))];
    },
    read: async () => {
      const listed = (await client.listResources()).resources.some((one) => one.uri === uri("fixed"));
      return [listed, await read(uri("fixed"))];
    },
    template: async () => {
      const { resourceTemplates } = await client.listResourceTemplates();
      const listed = resourceTemplates.some(({ uriTemplate }) => uriTemplate === uri("about/{topic}"));
      return [listed, await read(uri(`about/${mark}`))];
    },
    complete: async () => [
      await complete({ type: "ref/prompt", name: `${prefix}letter` }, "to", "A"),
      await complete({ type: "ref/resource", uri: uri("about/{topic}") }, "topic", "t"),
    ],
    update: async () => {
      const end = await watch(uri("counter"));
      const bumped = Number(await call("bump"));
      await heard.wait(uri("counter"));
      // Others bump it too.
      const found = Number(await read(uri("counter"))) >= bumped;
      await end();
      return found;
    },
    list_changed: async () => {
      const end = await watch();
      const name = `grown-${mark}`;
      await call("grow", { name });
      await heard.wait("tools");
      // What was heard may have been of another's.
      while (!(await client.listTools()).tools.some((tool) => tool.name === prefix + name)) await pause(50);
      await end();
      return true;
    },
  };
}

async function watchModern(client, uri) {
  const wanted = uri ? { resourceSubscriptions: [uri] } : { toolsListChanged: true };
  const subscription = await client.listen(wanted);
  return () => subscription.close();
}

async function watchLegacy(client, uri) {
  if (!uri) return async () => {};
  await client.subscribeResource({ uri });
  return () => client.unsubscribeResource({ uri });
}

async function settled(check) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing for ${SECONDS} s`)), SECONDS * 1000);
  });
  try {
    return await Promise.race([check(), late]);
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  } finally {
    clearTimeout(timer);
  }
}

async function session(wanted) {
  const client = sdk.client();
  const heard = new Heard();
  answers(client, heard, wanted.mark);
  const headers = wanted.token ? { Authorization: `Bearer ${wanted.token}` } : {};
  const transport = new sdk.StreamableHTTPClientTransport(new URL(wanted.url), { requestInit: { headers } });
  try {
    await client.connect(transport);
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
  const version = sdk.version(client, transport);
  const watch = (uri) => (version === MODERN ? watchModern : watchLegacy)(client, uri);
  const done = { version };
  for (const [name, check] of Object.entries(checks(client, heard, wanted, watch))) done[name] = await settled(check);
  if (version !== MODERN) await transport.terminateSession();
  await client.close();
  return done;
}

const done = await Promise.all(job.sessions.map(session));
// Whatever still waits is of a check that failed.
process.stdout.write(JSON.stringify(done), () => process.exit(0));

// Sessions of the TypeScript SDK: typescript.mjs JOB
//
// JOB is a JSON object: `url`, `modules` (the folder that holds node_modules), `package` (under which name the SDK 1.x is
// there, which speaks the legacy era) or `mode` (for the SDK 2.x: `auto`, `legacy` or a revision), and `sessions`, each with `token` or null,
// `prefix` of the tools to list and call, and `calls`, their arguments by name. Prints what it saw as JSON, session by
// session; `support.Seen` names the fields.

import { createRequire } from "node:module";

const job = JSON.parse(process.argv[2]);
const require = createRequire(`${job.modules}/`);

// What a session needs of each SDK: the client, how to hear log messages, and how to call with a listener for progress.
function one() {
  const { Client } = require(`${job.package}/client/index.js`);
  const { StreamableHTTPClientTransport } = require(`${job.package}/client/streamableHttp.js`);
  const { LoggingMessageNotificationSchema } = require(`${job.package}/types.js`);
  return {
    StreamableHTTPClientTransport,
    client: () => new Client({ name: "interop", version: "1.0.0" }),
    logs: LoggingMessageNotificationSchema,
    call: (client, params, options) => client.callTool(params, undefined, options),
    // Old ones do not tell.
    version: (_, transport) => transport.protocolVersion ?? null,
  };
}

function two() {
  const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
  const mode = ["auto", "legacy"].includes(job.mode) ? job.mode : { pin: job.mode };
  return {
    StreamableHTTPClientTransport,
    client: () => new Client({ name: "interop", version: "1.0.0" }, { versionNegotiation: { mode } }),
    logs: "notifications/message",
    call: (client, params, options) => client.callTool(params, options),
    version: (client) => client.getNegotiatedProtocolVersion(),
  };
}

const sdk = job.mode ? two() : one();

async function call(client, name, args) {
  const progress = [];
  const times = [];
  const onprogress = (update) => {
    progress.push(update.progress);
    times.push(performance.now() / 1000);
  };
  try {
    const result = await sdk.call(client, { name, arguments: args }, { onprogress });
    times.push(performance.now() / 1000);
    const text = result.content[0].text ?? "";
    return { error: result.isError ?? false, text, structured: result.structuredContent ?? null, progress, times };
  } catch (error) {
    return { code: error.code, message: error.message };
  }
}

async function session({ token, prefix, calls }) {
  const logged = [];
  const client = sdk.client();
  client.setNotificationHandler(sdk.logs, ({ params }) => logged.push(params.data));
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const transport = new sdk.StreamableHTTPClientTransport(new URL(job.url), { requestInit: { headers } });
  try {
    await client.connect(transport);
  } catch (error) {
    return { refused: `${error.message} ${error.code ?? ""}` };
  }
  const version = sdk.version(client, transport);
  if (version !== "2026-07-28") {
    await client.ping();
    if (client.getServerCapabilities()?.logging) await client.setLoggingLevel("info");
  }
  const { tools } = await client.listTools();
  const names = tools.map((tool) => tool.name).filter((name) => name.startsWith(prefix));
  const made = {};
  for (const [name, args] of Object.entries(calls)) made[name] = await call(client, prefix + name, args);
  if (version !== "2026-07-28") await transport.terminateSession();
  await client.close();
  return { version, tools: names, calls: made, logged };
}

// One after the other: a busy client would hear progress late.
const seen = [];
for (const wanted of job.sessions) seen.push(await session(wanted));
console.log(JSON.stringify(seen));

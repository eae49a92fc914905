// One session of the TypeScript SDK 1.x: typescript.mjs JOB
//
// JOB is a JSON object: `url`, `token` or null, `prefix` of the tools to list and call, `calls`, their arguments by name,
// and `modules`, the folder that holds node_modules. Prints what it saw as JSON; `support.Seen` names the fields.

import { createRequire } from "node:module";

const job = JSON.parse(process.argv[2]);
const require = createRequire(`${job.modules}/`);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { LoggingMessageNotificationSchema } = require("@modelcontextprotocol/sdk/types.js");

async function call(name, args) {
  const progress = [];
  const times = [];
  const onprogress = (update) => {
    progress.push(update.progress);
    times.push(performance.now() / 1000);
  };
  try {
    const result = await client.callTool({ name, arguments: args }, undefined, { onprogress });
    times.push(performance.now() / 1000);
    return { error: result.isError ?? false, text: result.content[0].text ?? "", progress, times };
  } catch (error) {
    return { code: error.code, message: error.message };
  }
}

const logged = [];
const client = new Client({ name: "interop", version: "1.0.0" });
client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => logged.push(params.data));
const headers = job.token ? { Authorization: `Bearer ${job.token}` } : {};
const transport = new StreamableHTTPClientTransport(new URL(job.url), { requestInit: { headers } });
await client.connect(transport);
await client.ping();
if (client.getServerCapabilities()?.logging) await client.setLoggingLevel("info");
const { tools } = await client.listTools();
const names = tools.map((tool) => tool.name).filter((name) => name.startsWith(job.prefix));
const calls = {};
for (const [name, args] of Object.entries(job.calls)) calls[name] = await call(job.prefix + name, args);
await transport.terminateSession();
await client.close();
console.log(JSON.stringify({ version: transport.protocolVersion, tools: names, calls, logged }));

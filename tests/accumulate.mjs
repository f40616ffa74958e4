// What the TypeScript SDK accumulates: the same facts as accumulate.py, which says what they are.
// Run as: node accumulate.mjs FOLDER ADDRESS MODEL...       FOLDER holds node_modules with the SDK
//         node accumulate.mjs FOLDER ADDRESS --tools MODEL  plays its tool runner instead
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, baseURL, ...models] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const sdk = require("@anthropic-ai/sdk");
const { betaTool } = require("@anthropic-ai/sdk/helpers/beta/json-schema");
const { VERSION } = require("@anthropic-ai/sdk/version");

const asked = [];
const recorded = (url, init) => {
  asked.push(JSON.parse(init.body));
  return fetch(url, init);
};
const client = new sdk.Anthropic({ baseURL, apiKey: "a-key", maxRetries: 0, timeout: 30000, fetch: recorded });
const tools = ["Read", "Grep"].map((name) => ({ name, description: "A tool", input_schema: { type: "object" } }));
const request = (model) => ({ model, max_tokens: 1024, tools, messages: [{ role: "user", content: "Go on." }] });
const copy = (value) => JSON.parse(JSON.stringify(value ?? null));

function failure(error) {
  if (!(error instanceof sdk.APIError)) throw error;
  return { class: error.constructor.name, status: error.status ?? null, body: copy(error.error) };
}

async function streamed(model) {
  const facts = { trace: [], message: null, error: null, snapshot: null };
  const tell = (...step) => facts.trace.push(copy(step));
  try {
    const stream = client.messages.stream(request(model));
    stream.on("streamEvent", (event, snapshot) => {
      facts.snapshot = copy(snapshot);
      // The listeners of the parts are called after this one.
      if (event.type === "content_block_start") tell("start", event.content_block.type);
    });
    stream.on("text", (text, snapshot) => tell("text", text, snapshot));
    stream.on("thinking", (text, snapshot) => tell("thinking", text, snapshot));
    stream.on("inputJson", (text, snapshot) => tell("input_json", text, snapshot));
    stream.on("signature", (text) => tell("signature", text));
    stream.on("contentBlock", (block) => tell("block", block));
    stream.on("message", (message) => tell("message", message));
    facts.message = copy(await stream.finalMessage());
  } catch (error) {
    facts.error = failure(error);
  }
  return facts;
}

async function whole(model) {
  try {
    return { message: copy(await client.messages.create(request(model))), error: null };
  } catch (error) {
    return { message: null, error: failure(error) };
  }
}

async function guarded(ask) {
  try {
    return await ask();
  } catch (error) {
    return { failed: String(error?.stack ?? error) };
  }
}

async function runTools(model, stream) {
  const calls = [];
  const run = ({ city }) => {
    calls.push(city);
    return `sunny in ${city}`;
  };
  const inputSchema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const weather = betaTool({ name: "weather", description: "The weather", inputSchema, run });
  const messages = [{ role: "user", content: "Go on." }];
  asked.length = 0;
  const runner = client.beta.messages.toolRunner({ model, max_tokens: 1024, messages, tools: [weather], stream });
  const kinds = [];
  for await (const turn of runner) {
    const message = stream ? await turn.finalMessage() : turn;
    kinds.push(message.stop_reason);
  }
  return { calls, kinds, asked: copy(asked), final: copy(await runner.done()) };
}

const facts = { version: VERSION, threads: true };
if (models[0] === "--tools") {
  facts.whole = await guarded(() => runTools(models[1], false));
  facts.streamed = await guarded(() => runTools(models[1], true));
} else {
  for (const model of models) {
    facts[model] = { streamed: await guarded(() => streamed(model)), whole: await guarded(() => whole(model)) };
  }
}
process.stdout.write(JSON.stringify(facts));
